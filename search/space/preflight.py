"""Looks, before a worker is asked for, at what only a backbone's layers or a user's own code can tell."""

from collections.abc import Callable
from typing import Any

from search.space.space import corners
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.techniques import ALIGNING_METHODS, NORM_METHODS
from trainable.config.trial import TrialConfig
from trainable.loader.own_code import find_code


def check_techniques(spec: SearchSpec) -> None:
    """Raise UserError for a technique that some backbone of the space leaves nothing to do, and as :func:`check_code` does.

    Backbones are laid out without their weights, and only where the space has such a technique.
    """
    check_code(spec)
    points: list[dict[str, Value]] = [{}, *corners(spec.space, of=1), *corners(spec.space, of=2)]
    seen: set[str] = set()
    layouts: dict[str, Any] = {}
    for point in points:
        config = spec.validated(point)
        adapt = config.adapt
        key = repr([config.model.name, config.freeze.depth, config.finetune, adapt.method, adapt.layer])
        if _asks_the_layers(config) and key not in seen:
            seen.add(key)
            _check_layers(config, layouts=layouts)


def check_code(spec: SearchSpec, *, look: Callable[[str], object] = find_code) -> None:
    """Raise UserError where a search has functions of a user's that are not allowed or not there, by ``look`` at each."""
    dimension = spec.space.dimensions.get("augment.custom")
    recipes = [recipe.get("augment.custom") for recipe in spec.try_first]
    lists = [spec.base.get("augment.custom"), *recipes, *(dimension.extremes if dimension is not None else ())]
    for path in dict.fromkeys(str(path) for paths in lists if isinstance(paths, list) for path in paths):
        look(path)


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
