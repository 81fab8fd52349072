"""What a scheduler is: a rule that says what a free worker does next, from the recorded trials alone."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search.engine.history import History
from search.ledger.trials import Trial


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
    """End a recorded trial where it stands, and say why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Wait:
    """Decide nothing before a running trial reports; a trial that is judged so waits at its rung."""


@dataclass(frozen=True)
class Finish:
    """End the search: everything is decided, no trial is left open."""


Action = Start | Continue | Close | Wait | Finish
Budget = Literal["open", "trials spent", "compute spent"]


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

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide what a free worker does next; ``running`` are the trials at work now. Quickest for a :class:`History`.

        An interrupted trial goes on first. Without budget for trials none is started; without compute only what the rule
        owes to its finalists is trained.
        """

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Continue | Close | Wait:
        """Judge the running trial ``number``, which has just reached its target."""


def interrupted(history: History, *, running: Container[int]) -> Continue | None:
    """Continue the first open trial that is not at work and has not reached its target."""
    number = next((number for number in history.underway if number not in running), None)
    return None if number is None else Continue(number, history[number].target)
