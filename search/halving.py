"""Who goes on: asynchronous successive halving as a pure function of the recorded trials.

Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA), in the promoting form the paper
describes: a trial that reaches a rung waits there until it is among the best 1/reduction of all that reached it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.trials import Trial
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
        rungs = []
        epoch = self.min_epochs
        while epoch < self.max_epochs:
            rungs.append(epoch)
            epoch *= self.reduction
        return (*rungs, self.max_epochs)


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
class Wait:
    """Nothing can be decided before a running trial reports."""


@dataclass(frozen=True)
class Finish:
    """Everything is decided: the search is over, the trials still waiting at a rung are closed."""


Action = Start | Continue | Wait | Finish


def next_action(trials: Sequence[Trial], *, rule: Halving, running: frozenset[int], may_start: bool) -> Action:
    """What a free worker does next.

    ``running`` are the trials at work now; ``may_start`` is false once the budget of trials or compute is spent. In
    order: an interrupted trial goes on; the best promotable trial of the highest rung; a new trial; at the end the
    best waiting trials until ``finalists`` have been trained in full.
    """
    waiting = [trial for trial in trials if trial.state == "RUNNING" and trial.number not in running]
    interrupted = [trial for trial in waiting if trial.last_epoch < trial.target]
    if interrupted:
        return Continue(interrupted[0].number, interrupted[0].target)
    promoted = _promotable(trials, waiting, rule=rule)
    if promoted:
        return promoted
    if may_start:
        return Start(rule.rungs[0] if rule.mode == "promote" else rule.max_epochs)
    if running:
        return Wait()
    return _finalist(trials, waiting, rule=rule) or Finish()


def survives(trials: Sequence[Trial], *, number: int, rule: Halving) -> bool:
    """Whether a trial that stands at a rung goes on in ``mode: stop``: it is among the best 1/reduction so far.

    As long as fewer than ``reduction`` trials have reached the rung, the best of them goes on.
    """
    rung = next(trial for trial in trials if trial.number == number).last_epoch
    ranked = _ranked(trials, rung=rung, rule=rule)
    return number in ranked[: max(1, len(ranked) // rule.reduction)]


def _promotable(trials: Sequence[Trial], waiting: Sequence[Trial], *, rule: Halving) -> Continue | None:
    """The best waiting trial among the best 1/reduction of the highest rung that has one."""
    if rule.mode == "stop":
        return None
    levels = rule.rungs
    for rung, following in reversed(list(zip(levels, levels[1:], strict=False))):
        ranked = _ranked(trials, rung=rung, rule=rule)
        here = {trial.number for trial in waiting if trial.last_epoch == rung}
        for number in ranked[: len(ranked) // rule.reduction]:
            if number in here:
                return Continue(number, following)
    return None


def _finalist(trials: Sequence[Trial], waiting: Sequence[Trial], *, rule: Halving) -> Continue | None:
    """The waiting trial nearest to the end, the best of equals, while too few have been trained in full."""
    finished = sum(trial.state == "COMPLETE" for trial in trials)
    if finished >= rule.finalists or not waiting:
        return None
    highest = max(trial.last_epoch for trial in waiting)
    here = {trial.number for trial in waiting if trial.last_epoch == highest}
    best = next((number for number in _ranked(trials, rung=highest, rule=rule) if number in here), None)
    return None if best is None else Continue(best, rule.max_epochs)


def _ranked(trials: Sequence[Trial], *, rung: int, rule: Halving) -> list[int]:
    """Numbers of the trials that reached a rung, the best value up to it first, the older of equals first."""
    sign = -1.0 if DIRECTIONS[rule.metric] == "maximize" else 1.0
    values = {trial.number: trial.best(rule.metric, until=rung) for trial in trials if trial.last_epoch >= rung}
    return sorted((number for number in values if values[number] is not None), key=lambda n: (sign * (values[n] or 0.0), n))
