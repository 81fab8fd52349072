"""The rules of a search, made from the sections of its specification."""

from search.halving import Halving
from search.sampling import Sampling
from search.spec import SearchSpec


def halving_rule(spec: SearchSpec) -> Halving:
    """The scheduler's section as a rule; ``none`` trains every trial in full."""
    scheduler = spec.scheduler
    return Halving(
        metric=spec.search.metric,
        mode=scheduler.mode,
        min_epochs=scheduler.max_epochs if scheduler.name == "none" else scheduler.min_epochs,
        max_epochs=scheduler.max_epochs,
        reduction=scheduler.reduction,
        finalists=scheduler.finalists,
    )


def sampling_rule(spec: SearchSpec) -> Sampling:
    """The sampler's section as a rule."""
    return Sampling(
        sampler=spec.sampler.name,
        seed=spec.search.seed,
        random_share=spec.sampler.random_share,
        metric=spec.search.metric,
        rungs=halving_rule(spec).rungs,
        startup=spec.sampler.startup,
        fresh=spec.sampler.fresh,
        try_first=tuple(spec.try_first),
    )
