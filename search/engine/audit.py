"""Stopped trials that are trained to the end all the same, to learn what stopping loses.

A share of the trials is drawn, by seed and number. Where the scheduler would close one of them it is held instead, so that the
search goes on as it would have; when nothing else is left to do those that are held are trained to the end.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, takewhile

from search.engine.clock import epoch_seconds, typical_epoch_seconds
from search.engine.history import History
from search.engine.rule import Action, Budget, Close, Continue, Finish, Hold, Rule, Wait
from search.ledger.trials import Trial
from trainable.seeds import derive

MOST_SHARE = 0.5  # of a budget that is kept for audits


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A scheduler's ``rule`` with a ``share`` of its stopped trials trained to the end."""

    rule: Rule
    share: float
    seed: int

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.rule.metric

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial can be judged, the last being the end of training."""
        return self.rule.rungs

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of many trials that reaches each rung, but for those that are audited."""
        return self.rule.shares

    @property
    def finalists(self) -> int:
        """How many trials are trained to the end whatever their values, beside those that are audited."""
        return self.rule.finalists

    @property
    def outline(self) -> Rule:
        """The rule that forecasts play out, without audits."""
        return self.rule.outline

    def draws(self, number: int) -> bool:
        """Whether a trial is audited if it is stopped."""
        return is_drawn(number, share=self.share, seed=self.seed)

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide as the rule does, which sees no audit; once it has finished train what is held, or close it without budget."""
        history = History.of(trials)
        searched = running.difference(history.audited)
        left: Budget = "compute spent" if budget == "kept for audits" else budget
        action = self._held(self.rule.next_action(history, running=searched, budget=left))
        if action != Finish():
            return action
        audit = self.next_audit(history, running=running)
        if isinstance(audit, Continue) and budget == "compute spent":
            stopped = history[audit.number].audited_at
            return Close(audit.number, f"stopped at epoch {stopped}, audited no further: the budget is spent")
        return audit or (Wait() if running else Finish())

    def expected_gain(self, trials: Sequence[Trial], *, running: frozenset[int], num_trials: int) -> float | None:
        """What the rule expects of so many more trials."""
        return self.rule.expected_gain(trials, running=running, num_trials=num_trials)

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Continue | Close | Hold | Wait:
        """Judge a trial as the rule does; one that is drawn is held where it would be closed."""
        judged = self.rule.verdict(trials, number=number)
        return Hold(number) if isinstance(judged, Close) and self.draws(number) else judged

    def next_audit(self, history: History, *, running: frozenset[int]) -> Hold | Continue | None:
        """Hold the first drawn trial that waits, then train on what is held, where nothing else is begun any more."""
        for number in history.unfinished:
            if number not in running and history[number].epochs and self.draws(number):
                return Hold(number)
        held = next((number for number in history.audited if number not in running), None)
        return None if held is None else Continue(held, self.rungs[-1])

    def epochs_kept(self, history: History, *, budget: float) -> float:
        """Epochs of a budget that are kept for the trials that are drawn and not at their end."""
        return _most_that_fit([float(epochs) for epochs, _ in self._owed(history)], budget=budget)

    def seconds_kept(self, history: History, *, budget: float) -> float:
        """Seconds of work that are."""
        return _most_that_fit([epochs * seconds for epochs, seconds in self._owed(history)], budget=budget)

    def _held(self, action: Action) -> Action:
        return Hold(action.number) if isinstance(action, Close) and self.draws(action.number) else action

    def _owed(self, history: History) -> list[tuple[int, float]]:
        """How many epochs each drawn trial that is open has to go, those that are held first, and what one takes."""
        typical = typical_epoch_seconds(history) or 0.0
        drawn = [*history.audited, *(number for number in history.unfinished if self.draws(number))]
        trials = [history[number] for number in drawn]
        return [(self.rungs[-1] - trial.last_epoch, epoch_seconds(trial) or typical) for trial in trials]


@cache
def is_drawn(number: int, *, share: float, seed: int) -> bool:
    """Whether a trial of a search with this seed is among the share that is audited."""
    return random.Random(derive(seed, "audit", number)).random() < share


def with_audit(rule: Rule, *, share: float, seed: int) -> Rule:
    """The rule, with audits where a share of the stopped trials is asked for."""
    return Audited(rule=rule, share=share, seed=seed) if share else rule


def is_audit(action: Action, *, history: History) -> bool:
    """Whether an action trains a trial on that the search has stopped."""
    return isinstance(action, Continue) and history[action.number].audited_at is not None


def _most_that_fit(amounts: Sequence[float], *, budget: float) -> float:
    """The sum of as many of the first as fit into the share of a budget that is kept at most."""
    return max(takewhile(lambda total: total <= MOST_SHARE * budget, accumulate(amounts)), default=0.0)
