"""Looks, before a worker is asked for, at what only a backbone's layers or a user's own code can tell."""

from typing import Any

from search.space import corners
from search.spec import SearchSpec
from search.trials import Value


def check_techniques(spec: SearchSpec) -> None:
    """Raise UserError for a strategy that some backbone of the space leaves nothing to do, and for code that is not there.

    Backbones are laid out without their weights, and only where the space has such a strategy.
    """
    points: list[dict[str, Value]] = [{}, *corners(spec.space, of=1), *corners(spec.space, of=2)]
    seen: set[str] = set()
    plans: dict[str, Any] = {}
    for point in points:
        config = spec.validated(point)
        for path in config.augment.custom:
            from trainable.augment.views import imported

            imported(path)
        key = repr([config.model.name, config.freeze.depth, config.finetune])
        if config.finetune.strategy == "gradual" and key not in seen:
            from trainable.model.backbone import plan_of
            from trainable.strategy import thaw_epochs

            seen.add(key)
            name = config.model.name
            plans[name] = plans.get(name) or plan_of(name)
            thaw_epochs(config, plan=plans[name])
