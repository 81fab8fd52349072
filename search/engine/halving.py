"""Who goes on: asynchronous successive halving as a pure function of the recorded trials.

Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA), in the promoting form the paper
describes: a trial that reaches a rung waits there until it is among the best 1/reduction of all that reached it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from search.ledger.trials import Trial
from search.space.spec import SearchSpec, geometric_rungs
from trainable.metrics import DIRECTIONS


@dataclass(frozen=True)
class Halving:
    """The rule: rungs at ``min_epochs``·``reduction``^k and ``max_epochs``; how many must be trained to the end."""

    metric: str
    mode: Literal["promote", "stop"]
    min_epochs: int
    max_epochs: int
    reduction: int
    finalists: int = 1

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial is judged, the last being the end of training."""
        return geometric_rungs(self.min_epochs, max_epochs=self.max_epochs, reduction=self.reduction)


@dataclass(frozen=True)
class Start:
    """Begin a new trial and train it to epoch ``until``."""

    until: int


@dataclass(frozen=True)
class Continue:
    """Train a recorded trial on to epoch ``until``."""

    number: int
    until: int


@dataclass(frozen=True)
class Close:
    """End a recorded trial where it stands: it is not among the best at its rung."""

    number: int
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing can be decided before a running trial reports."""


@dataclass(frozen=True)
class Finish:
    """Everything is decided: the search is over, the trials still waiting at a rung are closed."""


Action = Start | Continue | Close | Wait | Finish
Budget = Literal["open", "trials spent", "compute spent"]


def next_action(trials: Sequence[Trial], *, rule: Halving, running: frozenset[int], budget: Budget) -> Action:
    """What a free worker does next; ``running`` are the trials at work now.

    In order: an interrupted trial goes on; the best promotable trial of the highest rung; a new trial; and at the
    end the best waiting trials until ``finalists`` have been trained in full. Once the compute is spent only that
    last step is left.
    """
    waiting = [trial for trial in trials if trial.state == "RUNNING" and trial.number not in running]
    for trial in waiting:
        if trial.last_epoch < trial.target:
            return Continue(trial.number, trial.target)
    if budget != "compute spent":
        judged = _judged(trials, waiting, rule=rule)
        if judged is not None:
            return judged
    if budget == "open":
        return Start(rule.rungs[0])
    if any(trial.target < rule.max_epochs for trial in trials if trial.number in running):
        return Wait()
    return _finalist(trials, waiting, rule=rule, running=running) or (Wait() if running else Finish())


def verdict(trials: Sequence[Trial], *, number: int, rule: Halving) -> Continue | Close:
    """Whether a trial at a rung goes on in ``mode: stop``: it is among the best 1/reduction that reached it so far.

    While fewer than ``reduction`` have reached it, the best of them goes on.
    """
    rung = next(trial for trial in trials if trial.number == number).last_epoch
    ranked = _ranked(trials, rung=rung, rule=rule)
    if number in ranked[: max(1, len(ranked) // rule.reduction)]:
        return Continue(number, next(level for level in rule.rungs if level > rung))
    return Close(number, not_among_the_best(rung, rule=rule))


def not_among_the_best(rung: int, *, rule: Halving) -> str:
    """The reason of a trial closed at a rung."""
    return f"not among the best 1/{rule.reduction} at epoch {rung}"


def _judged(trials: Sequence[Trial], waiting: Sequence[Trial], *, rule: Halving) -> Continue | Close | None:
    """``stop`` judges a trial at its rung there and then; ``promote`` picks the best of the highest rung."""
    if rule.mode == "stop":
        return verdict(trials, number=waiting[0].number, rule=rule) if waiting else None
    levels = rule.rungs
    for rung, following in reversed(list(pairwise(levels))):
        ranked = _ranked(trials, rung=rung, rule=rule)
        here = {trial.number for trial in waiting if trial.last_epoch == rung}
        for number in ranked[: len(ranked) // rule.reduction]:
            if number in here:
                return Continue(number, following)
    return None


def _finalist(
    trials: Sequence[Trial], waiting: Sequence[Trial], *, rule: Halving, running: frozenset[int]
) -> Continue | None:
    """The waiting trial nearest to the end, the best of equals, while too few have been or are trained in full."""
    finished = sum(trial.state == "COMPLETE" for trial in trials) + len(running)
    if finished >= rule.finalists or not waiting:
        return None
    highest = max(trial.last_epoch for trial in waiting)
    here = {trial.number for trial in waiting if trial.last_epoch == highest}
    best = next((number for number in _ranked(trials, rung=highest, rule=rule) if number in here), None)
    return None if best is None else Continue(best, rule.max_epochs)


def _ranked(trials: Sequence[Trial], *, rung: int, rule: Halving) -> list[int]:
    """Numbers of the trials that reached a rung, the best value up to it first, the older of equals first.

    A trial that early stopping completed before the rung counts with what it reached.
    """
    sign = -1.0 if DIRECTIONS[rule.metric] == "maximize" else 1.0
    reached = [trial for trial in trials if trial.last_epoch >= rung or trial.state == "COMPLETE"]
    values = {trial.number: trial.best(rule.metric, until=rung) for trial in reached}
    return [
        number for _, number in sorted((sign * value, number) for number, value in values.items() if value is not None)
    ]


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
