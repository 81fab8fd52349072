"""What training the last candidates once more takes: kept of a budget until then, and whether it is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest

from search.engine.clock import epoch_seconds, start_seconds, typical_epoch_seconds
from search.ledger.trials import Trial

MOST_SHARE = 0.5  # of a budget; where more would be needed nothing is kept, since nobody could confirm anything with it


@dataclass(frozen=True, kw_only=True)
class Confirming:
    """``count`` candidates are to be trained once more to epoch ``until``, ``at_once`` at a time.

    ``spent_epochs`` and ``spent_seconds`` went into it before this process began.
    """

    count: int
    until: int
    at_once: int = 1
    spent_epochs: int = 0
    spent_seconds: float = 0.0

    def epochs_kept(self, *, budget: int) -> int:
        """Epochs of a budget that the search's own trials leave."""
        return max(self.spent_epochs, round(_if_sensible(self.count * self.until, budget=budget)))

    def work_seconds_kept(self, trials: Sequence[Trial], *, budget: float) -> float:
        """Seconds of work that the search's own trials leave of a budget of them, by what epochs take now."""
        forecast = sum(self._each(trials))
        return max(self.spent_seconds, _if_sensible(forecast, budget=budget))

    def time_kept(self, trials: Sequence[Trial], *, budget: float) -> float:
        """Seconds by the clock, of a budget of them, that are kept."""
        return _if_sensible(in_time(self._each(trials), at_once=self.at_once), budget=budget)

    def _each(self, trials: Sequence[Trial]) -> list[float]:
        """What each candidate takes: those that have come furthest are taken for them, as for the finalists of a clock."""
        measured = [trial for trial in trials if trial.is_searched and trial.epochs and trial.state != "FAILED"]
        furthest = nsmallest(self.count, measured, key=lambda trial: (-trial.last_epoch, trial.number))
        typical = typical_epoch_seconds(trials) or 0.0
        missing = [typical] * (self.count - len(furthest))
        paces = [epoch_seconds(trial) or typical for trial in furthest] + missing
        return [start_seconds(trials) + self.until * pace for pace in paces]


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of a budget: epochs, seconds of work, seconds by the clock; None without a bound."""

    epochs: int | None = None
    work_seconds: float | None = None
    clock_seconds: float | None = None


def shortage(remaining: Sequence[tuple[int, float]], *, at_once: int, start: float, left: Left) -> str:
    """Why refits with so many epochs to go, of so many seconds each, do not fit into what is left; empty where they do."""
    epochs = sum(count for count, _ in remaining)
    each = [start + count * seconds for count, seconds in remaining if count]
    for needed, there, unit in (
        (epochs, left.epochs, "epochs"),
        (sum(each), left.work_seconds, "seconds of work"),
        (in_time(each, at_once=at_once), left.clock_seconds, "seconds by the clock"),
    ):
        if there is not None and needed > there:
            return f"it takes {needed:.0f} {unit}, search.budget leaves {max(0.0, there):.0f}"
    return ""


def in_time(each: Sequence[float], *, at_once: int) -> float:
    """Seconds in which pieces of work are done, so many at once."""
    return max(max(each, default=0.0), sum(each) / at_once)


def _if_sensible(needed: float, *, budget: float) -> float:
    return needed if needed <= MOST_SHARE * budget else 0.0
