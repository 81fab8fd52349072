"""Search methods that are played against each other in simulated time: ours, Ray's and Optuna's own classes.

A player is asked for work when a slot is free and hears of every epoch; it knows nothing of time but what it is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Protocol, cast

import optuna
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from search_tables import Params, Task

from search.engine.history import History
from search.engine.rule import Budget, Close, Continue, Start
from search.engine.sampling import propose, sampling_rule
from search.engine.schedulers import SCHEDULERS, scheduler_rule
from search.ledger.trials import EpochRecord, State, Trial
from search.space.dimension import Prior
from search.space.sections import SamplerSection, SchedulerSection
from search.space.space import Space
from search.space.spec import SearchSpec
from trainable.metrics import DIRECTIONS

NEVER = datetime.min.replace(tzinfo=UTC)
OURS = "ours:"
SHORT = {"gp": ("asha", {"sampler": "gp"})}  # names of ours that stand for others with options


@dataclass(frozen=True)
class Work:
    """Train trial ``number``, which has these values, on from where it stands."""

    number: int
    params: Params


class Player(Protocol):
    """A search method."""

    def work(self, *, may_begin: bool) -> Work | None:
        """What a free slot does; None when there is nothing to do before an epoch ends somewhere."""

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Take the value of an epoch and say whether the slot trains the trial on at once."""


class Ours:
    """The product's own rule and sampler over a history that is kept as a search's ledger would."""

    def __init__(self, task: Task, *, seed: int, scheduler: str, options: Mapping[str, Any]) -> None:
        sampler = SamplerSection(name=options.get("sampler", "tpe"))
        of_scheduler = {
            name: value for name, value in options.items() if name not in ("sampler", "prior", "confidence")
        }
        space = known_beforehand(task, options=options)
        section = SchedulerSection(name=scheduler, max_epochs=task.epochs, **of_scheduler)
        spec = cast(
            SearchSpec,
            SimpleNamespace(
                search=SimpleNamespace(metric=task.metric, seed=seed),
                sampler=sampler,
                scheduler=section,
                space=space,
                try_first=(),
            ),
        )
        self._task, self._rule, self._sampling, self._space = task, scheduler_rule(spec), sampling_rule(spec), space
        self._history = History()
        self._running: set[int] = set()

    def work(self, *, may_begin: bool) -> Work | None:
        """The rule's next action, carried out."""
        budget: Budget = "open" if may_begin else "known trials"
        while True:
            match self._rule.next_action(self._history, running=frozenset(self._running), budget=budget):
                case Start(until, given):
                    params = given or self._proposed()
                    if params is None:
                        return None
                    number, origin = len(self._history), "random"
                    trial = Trial(number=number, params=params, state="RUNNING", epochs=(), target=until, origin=origin)
                case Continue(number, until):
                    trial = replace(self._history[number], target=until)
                case Close(number, _):
                    self._history.change(replace(self._history[number], state="PRUNED"))
                    continue
                case _:
                    return None
            self._history.change(trial)
            self._running.add(trial.number)
            return Work(trial.number, trial.params)

    def _proposed(self) -> Params | None:
        proposal = propose(self._history, space=self._space, rule=self._sampling)
        return None if proposal is None else proposal.params

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Record the epoch; at its target the trial is judged."""
        metrics = {self._task.metric: value} | ({} if seconds is None else {"usage/seconds": seconds})
        trial = self._history[number]
        state: State = "COMPLETE" if epoch == self._task.epochs else "RUNNING"
        record = EpochRecord(number=epoch, metrics=metrics, recorded=NEVER)
        self._history.change(replace(trial, epochs=(*trial.epochs, record), state=state))
        if epoch < trial.target:
            return True
        match None if state == "COMPLETE" else self._rule.verdict(self._history, number=number):
            case Continue(_, until):
                self._history.change(replace(self._history[number], target=until))
                return True
            case Close():
                self._history.change(replace(self._history[number], state="PRUNED"))
        self._running.remove(number)
        return False


class OfOptuna:
    """An Optuna study as its manual has it: ask, report, prune, tell the last value."""

    def __init__(self, task: Task, *, study: optuna.Study) -> None:
        self._task, self._study = task, study
        self._trials: list[optuna.Trial] = []

    def work(self, *, may_begin: bool) -> Work | None:
        """A new trial, as long as there may be one."""
        if not may_begin:
            return None
        trial = self._study.ask()
        self._trials.append(trial)
        return Work(len(self._trials) - 1, self._task.space.suggest(trial))

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Go on until the pruner says no or the training is over."""
        trial = self._trials[number]
        trial.report(value, epoch)
        if epoch == self._task.epochs:
            self._study.tell(trial, value)
        elif trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return True
        return False


class OfRay:
    """Ray Tune's AsyncHyperBandScheduler with OptunaSearch, called in the order in which Tune's controller calls them."""

    def __init__(self, task: Task, *, seed: int, grace: int, reduction: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        mode = "max" if DIRECTIONS[task.metric] == "maximize" else "min"
        self._task = task
        self._search = OptunaSearch(space=task.space.suggest, metric="value", mode=mode, seed=seed)
        self._scheduler = AsyncHyperBandScheduler(
            metric="value", mode=mode, max_t=task.epochs, grace_period=grace, reduction_factor=reduction
        )
        self._trials: list[SimpleNamespace] = []

    def work(self, *, may_begin: bool) -> Work | None:
        """A new trial, as long as there may be one."""
        if not may_begin:
            return None
        trial = SimpleNamespace(trial_id=str(len(self._trials)))
        params = self._search.suggest(trial.trial_id)
        self._trials.append(trial)
        self._scheduler.on_trial_add(None, trial)
        return Work(len(self._trials) - 1, params)

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Go on until the scheduler says no; the search hears of the last result as the trial's."""
        trial, result = self._trials[number], {"training_iteration": epoch, "value": value}
        if self._scheduler.on_trial_result(None, trial, result) == "STOP":
            self._scheduler.on_trial_complete(None, trial, result)
            self._search.on_trial_complete(trial.trial_id, result=result)
            return False
        self._search.on_trial_result(trial.trial_id, result)
        return True


def known_beforehand(task: Task, *, options: Mapping[str, Any]) -> Space:
    """The task's space, with ``prior=good`` around what is best on the other tasks, with ``prior=wrong`` around the worst."""
    if "prior" not in options:
        return task.space
    assert task.elsewhere is not None, f"{task.name} has no other tasks"
    centre = task.elsewhere({"good": "best", "wrong": "worst"}[options["prior"]])
    confidence = options.get("confidence", "medium")
    return Space(
        {
            path: replace(dimension, prior=Prior(centre[path], confidence))
            for path, dimension in task.space.dimensions.items()
        }
    )


def make_player(method: str, task: Task, *, seed: int) -> Player:
    """Make the player of a name in ``METHODS``, or of ``ours:SCHEDULER,key=value,…``.

    The keys are those of the scheduler's section, ``sampler``, ``prior`` (``good`` or ``wrong``) and its ``confidence``.
    """
    if method.startswith(OURS):
        scheduler, options = ours(method)
        return Ours(task, seed=seed, scheduler=scheduler, options=options)
    return STOCK[method](task, seed)


def ours(method: str) -> tuple[str, dict[str, Any]]:
    """The scheduler that a name of ours stands for, with what it sets."""
    name, *words = method.removeprefix(OURS).split(",")
    scheduler, options = SHORT.get(name, (name, {}))
    given = dict(word.split("=", 1) for word in words)
    return scheduler, {**options, **{key: int(value) if value.isdigit() else value for key, value in given.items()}}


def is_known(method: str) -> bool:
    """Whether there is such a method."""
    return method in STOCK or (method.startswith(OURS) and ours(method)[0] in SCHEDULERS)


def _study(task: Task, *, seed: int, sampler: optuna.samplers.BaseSampler, hyperband: bool) -> OfOptuna:
    """HyperbandPruner draws a trial's bracket from the study's name, which therefore is the same in every run of a seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = HyperbandPruner(min_resource=1, max_resource=task.epochs, reduction_factor=3) if hyperband else NopPruner()
    study = optuna.create_study(
        study_name=f"{task.name} {seed}", direction=DIRECTIONS[task.metric], sampler=sampler, pruner=pruner
    )
    return OfOptuna(task, study=study)


STOCK: dict[str, Any] = {
    "random": lambda task, seed: _study(task, seed=seed, sampler=RandomSampler(seed=seed), hyperband=False),
    "random+hyperband": lambda task, seed: _study(task, seed=seed, sampler=RandomSampler(seed=seed), hyperband=True),
    "optuna:tpe+hyperband": lambda task, seed: _study(task, seed=seed, sampler=TPESampler(seed=seed), hyperband=True),
    "optuna:gp": lambda task, seed: _study(task, seed=seed, sampler=GPSampler(seed=seed), hyperband=False),
    "ray:grace1-reduction4": lambda task, seed: OfRay(task, seed=seed, grace=1, reduction=4),
    "ray:grace5-reduction3": lambda task, seed: OfRay(task, seed=seed, grace=5, reduction=3),
}
METHODS = ("ours:asha", "ours:gp", "ours:freeze_thaw", *STOCK)
