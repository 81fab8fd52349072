"""Which values to try next, as a function of the recorded trials."""

import random
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from copy import deepcopy as deepcopied
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from search.engine.history import History, Ranking
from search.engine.priors import Priors
from search.ledger.trials import Trial
from search.space.space import Space
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.metrics import DIRECTIONS
from trainable.seeds import derive

DRAWS_BEFORE_EXHAUSTED = 64
MODEL_SIZE = 300  # results a sampler is fitted to, at most
KEPT_BEST = 25  # of them, whatever else there is: as many as TPE ever takes for good ones
WARM_START = "warm_start"  # the origin of a recipe from earlier searches
TRY_FIRST = "try_first"  # that of one of the search's own
PRIOR = "prior"  # the origin of a proposal by what is known beforehand
PRIOR_SHARE = 0.5  # of the proposals while there is no result
HALVED_BY = 10  # results by which that share is halved

_UNREAD = datetime.min  # in a study that nobody asks when


def _tpe(seed: int) -> BaseSampler:
    with _quiet():
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


def _gp(seed: int) -> BaseSampler:
    with _quiet():
        return GPSampler(seed=seed, n_startup_trials=1)


def _brute_force(seed: int) -> BaseSampler:
    with _quiet():
        return BruteForceSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": _tpe,
    "gp": _gp,
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The rule: sampler, seed, share of random proposals; recipes, then ``fresh`` random ones, before the sampler is asked.

    What is known beforehand of a space makes a share of all proposals but the recipes (:func:`prior_share`).
    """

    sampler: str
    seed: int
    random_share: float
    metric: str
    rungs: tuple[int, ...]
    startup: int | None = None
    fresh: int = 0
    try_first: tuple[Mapping[str, Value], ...] = ()
    num_warm: int = 0  # of these recipes, the first: from earlier searches
    overrides: tuple[Mapping[str, Value], ...] = ()  # of these recipes, in their order


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Values for one new trial: decoded, as Optuna stores them, over which distributions, and who proposed them.

    ``overrides`` are what the trial has in place of them and of what is fixed.
    """

    params: Mapping[str, Value]
    encoded: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    origin: str
    overrides: Mapping[str, Value] = field(default_factory=dict)


def propose(trials: Sequence[Trial], *, space: Space, rule: Sampling) -> Proposal | None:
    """The values of the next trial; None when every configuration of the space has been tried.

    The sampler is made anew each time, seeded by the search's seed and the number of searched trials, so that the proposal
    depends on the recorded trials alone. It is fitted to one rung, the highest that has enough results (BOHB's rule,
    Falkner et al. 2018): values of different rungs are never compared.
    """
    history = History.of(trials)
    number = history.num_searched
    seed = derive(rule.seed, "proposal", number) % 2**32
    waiting = num_waiting(history, rule=rule)
    if waiting:
        index = len(rule.try_first) - waiting
        recipe = space.encoded(rule.try_first[index])
        origin = WARM_START if index < rule.num_warm else TRY_FIRST
        proposal = _draw(_random_study(rule=rule, seed=seed, recipe=recipe), space, origin)
        return replace(proposal, overrides=rule.overrides[index]) if rule.overrides else proposal
    by_prior = _by_prior(history, space=space, rule=rule, seed=seed) if space.has_priors else None
    if by_prior is not None:
        return by_prior
    rung = model_rung(history, num_dimensions=len(space.dimensions), rule=rule)
    is_fresh = number < len(rule.try_first) + rule.fresh
    is_random_turn = is_fresh or random.Random(seed).random() < rule.random_share
    if rule.sampler != "random" and rung is not None and not is_random_turn:
        sampler = SAMPLERS[rule.sampler](seed)
        study = rung_study(history, space=space, rung=rung, metric=rule.metric, sampler=sampler, most=MODEL_SIZE)
        proposal = _draw(study, space, rule.sampler)
        if not history.has_tried(proposal.params):
            return proposal
    return _untried(history, space=space, rule=rule, seed=seed)


def propose_another(trials: Sequence[Trial], *, space: Space, rule: Sampling, attempt: int) -> Proposal | None:
    """A point drawn at random that no trial has, in place of one that does not suit: another for each ``attempt``; or None."""
    history = History.of(trials)
    seed = derive(rule.seed, "another", history.num_searched, attempt) % 2**32
    return _untried(history, space=space, rule=rule, seed=seed)


def num_waiting(trials: Sequence[Trial], *, rule: Sampling) -> int:
    """How many recipes, the last ones, no trial has been begun with; one that was too long for the time left comes again."""
    if not rule.try_first:
        return 0
    return max(0, len(rule.try_first) - sum(trial.origin in (WARM_START, TRY_FIRST) for trial in trials))


def num_led(rule: Sampling, *, space: Space) -> int:
    """How many trials a search begins with that are no model's: recipes, fresh ones, the centre of the priors."""
    return len(rule.try_first) + max(rule.fresh, int(space.has_priors))


def prior_share(num_results: int) -> float:
    """The share of proposals that what is known beforehand makes; halved by every so many results, so that a wrong one is left.

    PriorBand (Mallik et al. 2023) begins with as many proposals by the prior as without, too.
    """
    return float(PRIOR_SHARE * 0.5 ** (num_results / HALVED_BY))


def _by_prior(history: History, *, space: Space, rule: Sampling, seed: int) -> Proposal | None:
    """What the priors propose where it is their turn, their centre first; None where it is not, or all they drew was tried."""
    chance = np.random.default_rng(derive(seed, "prior"))
    priors = Priors(space)
    if history.num_searched == len(rule.try_first):
        points = iter([priors.centre(chance)])
    elif chance.random() < prior_share(history.ranking(rule.metric, rung=rule.rungs[0]).num_reached):
        points = priors.sample(chance, count=DRAWS_BEFORE_EXHAUSTED)
    else:
        return None
    point = next((point for point in points if not history.has_tried(point)), None)
    return None if point is None else proposal_of(point, space=space, origin=PRIOR)


def _untried(history: History, *, space: Space, rule: Sampling, seed: int) -> Proposal | None:
    """A point drawn at random that no trial has; None when there is none."""
    for attempt in range(DRAWS_BEFORE_EXHAUSTED):
        proposal = _draw(_random_study(rule=rule, seed=derive(seed, "again", attempt) % 2**32), space, "random")
        if not history.has_tried(proposal.params):
            return proposal
    distributions = _distributions(space)
    tried = (
        _record(trial, space=space, distributions=distributions, value=0.0) for trial in history if trial.is_searched
    )
    proposal = _draw(_study(tried, metric=rule.metric, sampler=_brute_force(seed)), space, "random")
    return None if history.has_tried(proposal.params) else proposal


def proposal_of(params: Mapping[str, Value], *, space: Space, origin: str) -> Proposal:
    """A whole point of the space as a proposal of somebody else's than the sampler's."""
    distributions = _distributions(space)
    of_point = {path: distributions[path] for path in params}
    return Proposal(params=params, encoded=space.encoded(params), distributions=of_point, origin=origin)


def model_rung(trials: Sequence[Trial], *, num_dimensions: int, rule: Sampling) -> int | None:
    """The highest rung with at least ``startup`` results (searched dimensions + 3 by default); None below that."""
    history = History.of(trials)
    enough = rule.startup if rule.startup is not None else num_dimensions + 3
    for rung in reversed(rule.rungs):
        if history.ranking(rule.metric, rung=rung).num_reached >= enough:
            return rung
    return None


def rung_study(
    trials: Sequence[Trial],
    *,
    space: Space,
    rung: int,
    metric: str,
    sampler: BaseSampler | None = None,
    most: int | None = None,
) -> optuna.Study:
    """A study in memory of the values at one rung; failed trials count as the worst, those at work as yet unknown.

    A trial that waits at a lower rung is left out: it is not about to have a value here. Failed ones are left out while no
    trial has a value, since there is no worst one yet. Of the others it has ``most``, chosen as :func:`_observed` says.
    """
    history = History.of(trials)
    ranking = history.ranking(metric, rung=rung)
    observed = set(_observed(history, ranking=ranking, most=most))
    distributions = _distributions(space)
    records = []
    at_work = [number for number in history.underway if history[number].is_searched]
    for trial in (history[number] for number in sorted(observed.union(at_work))):
        value = ranking.worst() if trial.state == "FAILED" else ranking.value(trial.number)
        value = value if trial.number in observed else None
        records.append(_record(trial, space=space, distributions=distributions, value=value))
    return _study(records, metric=metric, sampler=sampler)


def _observed(history: History, *, ranking: Ranking, most: int | None) -> list[int]:
    """Numbers of the trials with a value at a rung, and of those that failed; ``most`` of them where there are more.

    Then the ``KEPT_BEST`` stay, and of the rest, in the order of their numbers, as many as there is room for, at even
    distances, the newest among them.
    """
    placed = set(ranking.placed())
    if not placed:
        return []
    observed = placed.union(history.failed)
    if most is None or len(observed) <= most:
        return list(observed)
    best = list(islice((number for number in ranking.placed() if history[number].state != "FAILED"), KEPT_BEST))
    rest = sorted(observed.difference(best))
    room = most - len(best)
    return best + [rest[(index + 1) * len(rest) // room - 1] for index in range(room)]


def final_study(trials: Sequence[Trial], *, space: Space, metric: str) -> optuna.Study:
    """A study in memory of each trial's best value of all its epochs: for looking at, not for sampling."""
    study = optuna.create_study(direction=DIRECTIONS[metric])
    values = {trial.number: trial.best(metric) for trial in trials}
    distributions = _distributions(space)
    study.add_trials(
        _record(trial, space=space, distributions=distributions, value=values[trial.number]) for trial in trials
    )
    return study


def _random_study(*, rule: Sampling, seed: int, recipe: Mapping[str, Any] | None = None) -> optuna.Study:
    with _quiet():
        study = optuna.create_study(direction=DIRECTIONS[rule.metric], sampler=RandomSampler(seed=seed))
    if recipe is not None:
        study.enqueue_trial(dict(recipe))
    return study


class _Records(InMemoryStorage):
    """Storage of a study that begins with records, which are neither checked nor copied."""

    def __init__(self, records: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._records = records

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The records, then what the study has asked for."""
        records = [record for record in self._records if states is None or record.state in states]
        return (deepcopied(records) if deepcopy else records) + super().get_all_trials(study_id, deepcopy, states)


def _study(records: Iterable[FrozenTrial], *, metric: str, sampler: BaseSampler | None) -> optuna.Study:
    with _quiet():
        return optuna.create_study(direction=DIRECTIONS[metric], sampler=sampler, storage=_Records(list(records)))


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """What Optuna draws each path from."""
    drawn = FixedTrial({path: dimension.encode(dimension.extremes[0]) for path, dimension in space.dimensions.items()})
    for path, dimension in space.dimensions.items():
        dimension.suggest(drawn, path=path)
    return drawn.distributions


def _record(
    trial: Trial, *, space: Space, distributions: Mapping[str, BaseDistribution], value: float | None
) -> FrozenTrial:
    """A trial as a study has it, at work where it has no value.

    Number 0 is left to the trial that a study is asked for, since samplers tell it from the others by its number.
    """
    params = space.encoded(trial.params)
    return FrozenTrial(
        number=trial.number + 1,
        trial_id=-1,
        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
        value=value,
        params=params,
        distributions={path: distributions[path] for path in params},
        datetime_start=_UNREAD,
        datetime_complete=None if value is None else _UNREAD,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


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


def sampling_rule(spec: SearchSpec, *, warm: Sequence[Mapping[str, Value]] = ()) -> Sampling:
    """The sampler's section as a rule, with recipes of earlier searches before the search's own."""
    return Sampling(
        sampler=spec.sampler.name,
        seed=spec.search.seed,
        random_share=spec.sampler.random_share,
        metric=spec.search.metric,
        rungs=spec.scheduler.rungs,
        startup=spec.sampler.startup,
        fresh=spec.sampler.fresh,
        try_first=(*warm, *spec.try_first),
        num_warm=len(warm),
    )
