"""Every trial trained to the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.engine.history import History
from search.engine.prospect import expected_gain
from search.engine.rule import Action, Budget, Finish, Start, Wait, interrupted
from search.ledger.trials import Trial


@dataclass(frozen=True)
class NoHalving:
    """Trains every trial to ``max_epochs`` and judges none on the way."""

    metric: str
    max_epochs: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """The end of training alone."""
        return (self.max_epochs,)

    @property
    def shares(self) -> tuple[float, ...]:
        """Every trial reaches the end."""
        return (1.0,)

    @property
    def finalists(self) -> int:
        """None beside those that are trained anyway."""
        return 0

    @property
    def outline(self) -> "NoHalving":
        """Itself, since it is quick to play."""
        return self

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Continue what was interrupted, then start new trials while the budget is open."""
        unfinished = interrupted(History.of(trials), running=running)
        if unfinished is not None:
            return unfinished
        if budget == "open":
            return Start(self.max_epochs)
        return Wait() if running else Finish()

    def expected_gain(self, trials: Sequence[Trial], *, running: frozenset[int], num_trials: int) -> float | None:
        """What the tail of the values so far promises of so many more trials."""
        return expected_gain(trials, metric=self.metric, num_trials=num_trials)

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Wait:
        """Leave the trial as it is: at the end of training it is complete."""
        return Wait()
