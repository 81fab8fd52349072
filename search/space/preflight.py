"""Looks, before a worker is asked for, at what only a backbone's layers or a user's own code can tell."""

from typing import Any

from search.space.space import corners
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.techniques import ALIGNING_METHODS, NORM_METHODS
from trainable.config.trial import TrialConfig


def check_techniques(spec: SearchSpec) -> None:
    """Raise UserError for a technique that some backbone of the space leaves nothing to do, and for code that is not there.

    Backbones are laid out without their weights, and only where the space has such a technique.
    """
    points: list[dict[str, Value]] = [{}, *corners(spec.space, of=1), *corners(spec.space, of=2)]
    seen: set[str] = set()
    layouts: dict[str, Any] = {}
    for point in points:
        config = spec.validated(point)
        for path in config.augment.custom:
            from trainable.loader.views import imported

            imported(path)
        adapt = config.adapt
        key = repr([config.model.name, config.freeze.depth, config.finetune, adapt.method, adapt.layer])
        if _asks_the_layers(config) and key not in seen:
            seen.add(key)
            _check_layers(config, layouts=layouts)


def _asks_the_layers(config: TrialConfig) -> bool:
    adapt = config.adapt
    aligns_a_stage = adapt.method in ALIGNING_METHODS and adapt.layer != "pooled"
    return config.finetune.strategy == "gradual" or adapt.method in NORM_METHODS or aligns_a_stage


def _check_layers(config: TrialConfig, *, layouts: dict[str, Any]) -> None:
    from trainable.model.backbone import laid_out
    from trainable.model.network import aligned_stage
    from trainable.model.phase import thaw_epochs

    name = config.model.name
    layouts[name] = layouts.get(name) or laid_out(name)
    backbone, plan = layouts[name]
    if config.finetune.strategy == "gradual":
        thaw_epochs(config, plan=plan)
    aligned_stage(config, backbone=backbone, plan=plan)
