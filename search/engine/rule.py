"""What a scheduler is: a rule that says what a free worker does next, from the recorded trials alone."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search.engine.history import History
from search.ledger.trials import Trial
from search.space.values import Value


@dataclass(frozen=True)
class Start:
    """Begin a new trial and train it to epoch ``until``: with these values, or with those that the sampler proposes."""

    until: int
    params: Mapping[str, Value] | None = None


@dataclass(frozen=True)
class Continue:
    """Train a recorded trial on to epoch ``until``."""

    number: int
    until: int


@dataclass(frozen=True)
class Close:
    """End a recorded trial where it stands, and say why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Hold:
    """Stop a recorded trial where it stands, but keep it open for an audit (:mod:`search.engine.audit`)."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Decide nothing before a running trial reports; a trial that is judged so waits at its rung."""


@dataclass(frozen=True)
class Finish:
    """End the search: everything is decided, no trial is left open."""


Action = Start | Continue | Close | Hold | Wait | Finish
# "known trials": no new trial can begin, but what is left of the compute is there to be spent on those that are open.
# "kept for audits": what is left of the compute is for audits alone; a rule that knows of none is told it is spent.
Budget = Literal["open", "known trials", "trials spent", "kept for audits", "compute spent"]


class Rule(Protocol):
    """A scheduler as a frozen value without state; tests/contracts/test_schedulers.py holds what every one keeps."""

    def __hash__(self) -> int:
        """Equal rules have equal hashes."""

    @property
    def metric(self) -> str:
        """What trials are compared by."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial can be judged, in ascending order; the last is the end of training."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of many trials that reaches each rung."""

    @property
    def finalists(self) -> int:
        """How many trials are trained to the end whatever their values."""

    @property
    def outline(self) -> "Rule":
        """The rule that forecasts play out: this one, or one that is quicker to play and goes about as far."""

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide what a free worker does next; ``running`` are the trials at work now. Quickest for a :class:`History`.

        An interrupted trial goes on first. Without budget for trials none is started; without compute only what the rule
        owes to its finalists is trained.
        """

    def expected_gain(self, trials: Sequence[Trial], *, running: frozenset[int], num_trials: int) -> float | None:
        """By how much so many more trials are expected to improve the best, in units of the metric.

        None while too little is known.
        """

    def verdict(self, trials: Sequence[Trial], *, number: int) -> "Continue | Close | Hold | Wait":
        """Judge the running trial ``number``, which has just reached its target."""


def interrupted(history: History, *, running: Container[int]) -> Continue | None:
    """Continue the first open trial that is not at work and has not reached its target."""
    number = next((number for number in history.underway if number not in running), None)
    return None if number is None else Continue(number, history[number].target)


def wind_down(history: History, *, rule: Rule, running: frozenset[int], spare: bool, reason: str) -> Action:
    """Begin nothing new: train the rule's finalists to the end, then close what waits, with a reason; then the search is over.

    A worker that is free while the last finalist is trained trains one more, if that takes no longer.
    """
    if any(history[number].target < rule.rungs[-1] for number in running):
        return Wait()
    num_owed = rule.finalists - history.num_complete - len(running)
    finalist = _next_to_end(history, rule=rule, running=running)
    if finalist is not None and (num_owed > 0 or (spare and _ends_beside(history, finalist, running=running))):
        return Continue(finalist, rule.rungs[-1])
    if running:
        return Wait()
    first = first_waiting(history, running=running)
    return Finish() if first is None else Close(first, f"{reason} at epoch {history[first].last_epoch}")


def _next_to_end(history: History, *, rule: Rule, running: frozenset[int]) -> int | None:
    """The waiting trial nearest to the end, the best of equals."""
    highest = history.last_resting_epoch(rule.metric, besides=running)
    return None if highest is None else history.best_resting(rule.metric, epoch=highest, besides=running)


def _ends_beside(history: History, number: int, *, running: frozenset[int]) -> bool:
    """Whether a trial has no more epochs to the end than the only one at work."""
    return len(running) == 1 and all(history[other].last_epoch <= history[number].last_epoch for other in running)


def first_waiting(history: History, *, running: frozenset[int]) -> int | None:
    """The lowest number among the open trials that are not at work."""
    return next((number for number in history.unfinished if number not in running), None)
