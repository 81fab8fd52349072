"""The schedulers by the name that a space file gives them."""

from collections.abc import Callable

from search.engine.freeze_thaw import FreezeThaw
from search.engine.halving import Halving
from search.engine.no_halving import NoHalving
from search.engine.rule import Rule
from search.space.spec import SearchSpec

STARTUP = 4  # results before the model of curves decides; with more, less was found early (docs/benchmarks.md)

SCHEDULERS: dict[str, Callable[[SearchSpec], Rule]] = {
    "asha": lambda spec: Halving(
        metric=spec.search.metric,
        mode=spec.scheduler.mode,
        min_epochs=spec.scheduler.min_epochs,
        max_epochs=spec.scheduler.max_epochs,
        reduction=spec.scheduler.reduction,
        finalists=spec.scheduler.finalists,
    ),
    "freeze_thaw": lambda spec: FreezeThaw(
        metric=spec.search.metric,
        min_epochs=spec.scheduler.min_epochs,
        max_epochs=spec.scheduler.max_epochs,
        reduction=spec.scheduler.reduction,
        finalists=spec.scheduler.finalists,
        cost=spec.scheduler.cost,
        startup=spec.sampler.startup or STARTUP,
        seed=spec.search.seed,
        space=spec.space,
    ),
    "none": lambda spec: NoHalving(metric=spec.search.metric, max_epochs=spec.scheduler.max_epochs),
}


def scheduler_rule(spec: SearchSpec) -> Rule:
    """Make the rule of a search's scheduler."""
    return SCHEDULERS[spec.scheduler.name](spec)
