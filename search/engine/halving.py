"""Who goes on: asynchronous successive halving as a pure function of the recorded trials.

Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA), in the promoting form the paper
describes: a trial that reaches a rung waits there until it is among the best 1/reduction of all that reached it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from search.engine.history import History
from search.engine.prospect import expected_gain
from search.engine.rule import Action, Budget, Close, Continue, Start, Wait, first_waiting, interrupted, wind_down
from search.ledger.trials import Trial
from search.space.sections import geometric_rungs


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

    @property
    def outline(self) -> "Halving":
        """Itself, since it is quick to play."""
        return self

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide what a free worker does next; ``running`` are the trials at work now.

        In order: an interrupted trial goes on; the best promotable trial of the highest rung; a new trial; and at the
        end the best waiting trials until ``finalists`` have been trained in full. Once the compute is spent only that
        last step is left. What still waits then is closed.
        """
        history = History.of(trials)
        unfinished = interrupted(history, running=running)
        if unfinished is not None:
            return unfinished
        judged = None if budget == "compute spent" else self._judged(history, running=running)
        if judged is not None:
            return judged
        if budget == "open":
            return Start(self.rungs[0])
        return wind_down(history, rule=self, running=running, spare=budget != "compute spent", reason=self._reason)

    def expected_gain(self, trials: Sequence[Trial], *, running: frozenset[int], num_trials: int) -> float | None:
        """What the tail of the values so far promises of so many more trials."""
        return expected_gain(trials, metric=self.metric, num_trials=num_trials)

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Continue | Close | Wait:
        """Judge a trial that has reached its rung: in ``promote`` it waits there, in ``stop`` it goes on or is closed.

        It goes on where it is among the best 1/reduction that reached the rung so far; while fewer than ``reduction``
        have, the best of them goes on.
        """
        if self.mode == "promote":
            return Wait()
        history = History.of(trials)
        rung = history[number].last_epoch
        ranking = history.ranking(self.metric, rung=rung)
        place = ranking.place(number)
        if place is not None and place < max(1, ranking.num_placed // self.reduction):
            return Continue(number, next(level for level in self.rungs if level > rung))
        return Close(number, f"{self._reason} at epoch {rung}")

    def _judged(self, history: History, *, running: frozenset[int]) -> Continue | Close | None:
        """In ``stop`` the first trial at a rung is judged; in ``promote`` the best of the highest rung goes on."""
        if self.mode == "stop":
            first = first_waiting(history, running=running)
            judged = None if first is None else self.verdict(history, number=first)
            return None if isinstance(judged, Wait) else judged
        for rung, following in reversed(list(pairwise(self.rungs))):
            best = history.best_resting(self.metric, epoch=rung, besides=running)
            ranking = history.ranking(self.metric, rung=rung)
            place = None if best is None else ranking.place(best)
            if best is not None and place is not None and place < ranking.num_placed // self.reduction:
                return Continue(best, following)
        return None

    @property
    def _reason(self) -> str:
        return f"not among the best 1/{self.reduction}"
