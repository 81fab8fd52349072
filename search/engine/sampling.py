"""Which values to try next, as a function of the recorded trials."""

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search.ledger.trials import Trial
from search.space.space import Space
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.metrics import DIRECTIONS
from trainable.seeds import derive

DRAWS_BEFORE_EXHAUSTED = 64


def _tpe(seed: int) -> BaseSampler:
    with _quiet():
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


def _gp(seed: int) -> BaseSampler:
    with _quiet():
        return GPSampler(seed=seed, n_startup_trials=1)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": _tpe,
    "gp": _gp,
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The rule: sampler, seed, share of random proposals; recipes, then ``fresh`` random ones, before the sampler is asked."""

    sampler: str
    seed: int
    random_share: float
    metric: str
    rungs: tuple[int, ...]
    startup: int | None = None
    fresh: int = 0
    try_first: tuple[Mapping[str, Value], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Values for one new trial: decoded, as Optuna stores them, over which distributions, and who proposed them."""

    params: Mapping[str, Value]
    encoded: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    origin: str


def propose(trials: Sequence[Trial], *, space: Space, rule: Sampling) -> Proposal | None:
    """The values of trial number ``len(trials)``; None when every configuration of the space has been tried.

    The sampler is made anew each time, seeded by the search's seed and the trial's number, so that the proposal
    depends on the recorded trials alone. It is fitted to one rung, the highest that has enough results (BOHB's rule,
    Falkner et al. 2018): values of different rungs are never compared.
    """
    number = len(trials)
    seed = derive(rule.seed, "proposal", number) % 2**32
    tried = [trial.params for trial in trials]
    if number < len(rule.try_first):
        recipe = space.encoded(rule.try_first[number])
        return _draw(_random_study(rule=rule, seed=seed, recipe=recipe), space, "try_first")
    rung = model_rung(trials, num_dimensions=len(space.dimensions), rule=rule)
    is_fresh = number < len(rule.try_first) + rule.fresh
    is_random_turn = is_fresh or random.Random(seed).random() < rule.random_share
    if rule.sampler != "random" and rung is not None and not is_random_turn:
        study = rung_study(trials, space=space, rung=rung, metric=rule.metric, sampler=SAMPLERS[rule.sampler](seed))
        proposal = _draw(study, space, rule.sampler)
        if proposal.params not in tried:
            return proposal
    for attempt in range(DRAWS_BEFORE_EXHAUSTED):
        proposal = _draw(_random_study(rule=rule, seed=derive(seed, "again", attempt) % 2**32), space, "random")
        if proposal.params not in tried:
            return proposal
    with _quiet():
        every = optuna.create_study(direction=DIRECTIONS[rule.metric], sampler=BruteForceSampler(seed=seed))
    every.add_trials(_frozen(trial, space=space, state=TrialState.COMPLETE, value=0.0) for trial in trials)
    proposal = _draw(every, space, "random")
    return proposal if proposal.params not in tried else None


def model_rung(trials: Sequence[Trial], *, num_dimensions: int, rule: Sampling) -> int | None:
    """The highest rung with at least ``startup`` results (searched dimensions + 3 by default); None below that."""
    enough = rule.startup if rule.startup is not None else num_dimensions + 3
    for rung in reversed(rule.rungs):
        if sum(_reached(trial, rung) for trial in trials) >= enough:
            return rung
    return None


def _reached(trial: Trial, rung: int) -> bool:
    return (trial.last_epoch >= rung or trial.state == "COMPLETE") and bool(trial.epochs)


def rung_study(
    trials: Sequence[Trial], *, space: Space, rung: int, metric: str, sampler: BaseSampler | None = None
) -> optuna.Study:
    """A study in memory of the values at one rung; failed trials count as the worst, those at work as yet unknown.

    A trial that waits at a lower rung is left out: it is not about to have a value here. Failed ones are left out while no
    trial has a value, since there is no worst one yet.
    """
    values = {trial.number: trial.best(metric, until=rung) for trial in trials if _reached(trial, rung)}
    measured_values = [value for value in values.values() if value is not None]
    worst = (
        min(measured_values, default=None) if DIRECTIONS[metric] == "maximize" else max(measured_values, default=None)
    )
    frozen = []
    for trial in trials:
        value = worst if trial.state == "FAILED" else values.get(trial.number)
        if value is not None:
            frozen.append(_frozen(trial, space=space, state=TrialState.COMPLETE, value=value))
        elif trial.state == "RUNNING" and trial.last_epoch < trial.target:
            frozen.append(_frozen(trial, space=space, state=TrialState.RUNNING, value=None))
    with _quiet():
        study = optuna.create_study(direction=DIRECTIONS[metric], sampler=sampler)
    study.add_trials(frozen)
    return study


def final_study(trials: Sequence[Trial], *, space: Space, metric: str) -> optuna.Study:
    """A study in memory of each trial's best value of all its epochs: for looking at, not for sampling."""
    study = optuna.create_study(direction=DIRECTIONS[metric])
    values = {trial.number: trial.best(metric) for trial in trials}
    study.add_trials(
        _frozen(trial, space=space, state=TrialState.COMPLETE, value=values[trial.number]) for trial in trials
    )
    return study


def _random_study(*, rule: Sampling, seed: int, recipe: Mapping[str, Any] | None = None) -> optuna.Study:
    with _quiet():
        study = optuna.create_study(direction=DIRECTIONS[rule.metric], sampler=RandomSampler(seed=seed))
    if recipe is not None:
        study.enqueue_trial(dict(recipe))
    return study


def _frozen(trial: Trial, *, space: Space, state: TrialState, value: float | None) -> FrozenTrial:
    params = space.encoded(trial.params)
    fixed = FixedTrial(params)
    space.suggest(fixed)
    return create_trial(state=state, value=value, params=params, distributions=dict(fixed.distributions))


def _draw(study: optuna.Study, space: Space, origin: str) -> Proposal:
    with _quiet():
        trial = study.ask()
        params = space.suggest(trial)
    return Proposal(params=params, encoded=dict(trial.params), distributions=dict(trial.distributions), origin=origin)


class _quiet(warnings.catch_warnings):  # noqa: N801
    """No words from Optuna about experimental arguments."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)


def sampling_rule(spec: SearchSpec) -> Sampling:
    """The sampler's section as a rule."""
    return Sampling(
        sampler=spec.sampler.name,
        seed=spec.search.seed,
        random_share=spec.sampler.random_share,
        metric=spec.search.metric,
        rungs=spec.scheduler.rungs,
        startup=spec.sampler.startup,
        fresh=spec.sampler.fresh,
        try_first=tuple(spec.try_first),
    )
