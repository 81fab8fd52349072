"""Who goes on: asynchronous successive halving as a pure function of the recorded trials.

Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA), in the promoting form the paper
describes: a trial that reaches a rung waits there until it is among the best 1/reduction of all that reached it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from search.engine.rule import (
    Action,
    Budget,
    Close,
    Continue,
    Finish,
    Start,
    Wait,
    interrupted,
    waiting_trials,
)
from search.ledger.trials import Trial
from search.space.sections import geometric_rungs
from trainable.metrics import DIRECTIONS


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Rungs at ``min_epochs``·``reduction``^k and ``max_epochs``; ``finalists`` are trained to the end at least.

    In ``mode`` ``promote`` a trial waits at its rung until it is among the best there, in ``stop`` it is judged when it
    arrives.
    """

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

    @property
    def shares(self) -> tuple[float, ...]:
        """One in ``reduction`` goes on at each rung."""
        return tuple(self.reduction**-level for level in range(len(self.rungs)))

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide what a free worker does next; ``running`` are the trials at work now.

        In order: an interrupted trial goes on; the best promotable trial of the highest rung; a new trial; and at the
        end the best waiting trials until ``finalists`` have been trained in full. Once the compute is spent only that
        last step is left. What still waits then is closed.
        """
        waiting = waiting_trials(trials, running=running)
        unfinished = interrupted(waiting)
        if unfinished is not None:
            return unfinished
        judged = None if budget == "compute spent" else self._judged(trials, waiting)
        if judged is not None:
            return judged
        if budget == "open":
            return Start(self.rungs[0])
        if any(trial.target < self.max_epochs for trial in trials if trial.number in running):
            return Wait()
        return self._finalist(trials, waiting, running=running) or self._end(waiting, running=running)

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Continue | Close | Wait:
        """Judge a trial that has reached its rung: in ``promote`` it waits there, in ``stop`` it goes on or is closed.

        It goes on where it is among the best 1/reduction that reached the rung so far; while fewer than ``reduction``
        have, the best of them goes on.
        """
        if self.mode == "promote":
            return Wait()
        rung = next(trial for trial in trials if trial.number == number).last_epoch
        ranked = self._ranked(trials, rung=rung)
        if number in ranked[: max(1, len(ranked) // self.reduction)]:
            return Continue(number, next(level for level in self.rungs if level > rung))
        return self._close(number, rung=rung)

    def _judged(self, trials: Sequence[Trial], waiting: Sequence[Trial]) -> Continue | Close | None:
        """In ``stop`` the first trial at a rung is judged; in ``promote`` the best of the highest rung goes on."""
        if self.mode == "stop":
            judged = self.verdict(trials, number=waiting[0].number) if waiting else None
            return None if isinstance(judged, Wait) else judged
        for rung, following in reversed(list(pairwise(self.rungs))):
            ranked = self._ranked(trials, rung=rung)
            here = {trial.number for trial in waiting if trial.last_epoch == rung}
            for number in ranked[: len(ranked) // self.reduction]:
                if number in here:
                    return Continue(number, following)
        return None

    def _finalist(
        self, trials: Sequence[Trial], waiting: Sequence[Trial], *, running: frozenset[int]
    ) -> Continue | None:
        """Continue the waiting trial nearest to the end, the best of equals, while too few are trained in full."""
        finished = sum(trial.state == "COMPLETE" for trial in trials) + len(running)
        if finished >= self.finalists or not waiting:
            return None
        highest = max(trial.last_epoch for trial in waiting)
        here = {trial.number for trial in waiting if trial.last_epoch == highest}
        best = next((number for number in self._ranked(trials, rung=highest) if number in here), None)
        return None if best is None else Continue(best, self.max_epochs)

    def _end(self, waiting: Sequence[Trial], *, running: frozenset[int]) -> Action:
        """Close what waits, one trial after the other, when nobody is at work any more; then the search is over."""
        if running:
            return Wait()
        return self._close(waiting[0].number, rung=waiting[0].last_epoch) if waiting else Finish()

    def _close(self, number: int, *, rung: int) -> Close:
        return Close(number, f"not among the best 1/{self.reduction} at epoch {rung}")

    def _ranked(self, trials: Sequence[Trial], *, rung: int) -> list[int]:
        """Numbers of the trials that reached a rung, the best value up to it first, the older of equals first.

        A trial that early stopping completed before the rung counts with what it reached.
        """
        sign = -1.0 if DIRECTIONS[self.metric] == "maximize" else 1.0
        reached = [trial for trial in trials if trial.last_epoch >= rung or trial.state == "COMPLETE"]
        values = {trial.number: trial.best(self.metric, until=rung) for trial in reached}
        return [
            number
            for _, number in sorted((sign * value, number) for number, value in values.items() if value is not None)
        ]
