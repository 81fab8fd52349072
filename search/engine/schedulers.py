"""The schedulers by the name that a space file gives them."""

from collections.abc import Callable
from typing import Literal

from search.engine.audit import with_audit
from search.engine.freeze_thaw import FreezeThaw
from search.engine.halving import Halving
from search.engine.no_halving import NoHalving
from search.engine.rule import Rule
from search.space.spec import SearchSpec

STARTUP = 4  # results before the model of curves decides

SCHEDULERS: dict[str, Callable[[SearchSpec], Rule]] = {
    "asha": lambda spec: _halving(spec, mode=spec.scheduler.mode),
    "freeze_thaw": lambda spec: FreezeThaw(
        outline=_halving(spec, mode="promote"),
        startup=spec.sampler.startup or STARTUP,
        cost=spec.scheduler.cost,
        seed=spec.search.seed,
        space=spec.space,
    ),
    "none": lambda spec: NoHalving(metric=spec.search.metric, max_epochs=spec.scheduler.max_epochs),
}


def scheduler_rule(spec: SearchSpec) -> Rule:
    """Make the rule of a search's scheduler."""
    rule = SCHEDULERS[spec.scheduler.name](spec)
    return with_audit(rule, share=spec.scheduler.audit, seed=spec.search.seed)


def _halving(spec: SearchSpec, *, mode: Literal["promote", "stop"]) -> Halving:
    section = spec.scheduler
    return Halving(
        metric=spec.search.metric,
        mode=mode,
        min_epochs=section.min_epochs,
        max_epochs=section.max_epochs,
        reduction=section.reduction,
        finalists=section.finalists,
    )
