"""Moments of a search as seconds of its work: what passed while no process was at it counts for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from search.engine.clock import stretches_before
from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial
from search.report.spending import duration

SHORTEST_PAUSE = 1.0  # seconds between two processes that count as a pause
GAP = 0.03  # of all time at work, which a pause takes on an axis however long it was
TICKS = 7  # on an axis at most
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 43200, 86400)  # seconds between ticks


@dataclass(frozen=True)
class Pause:
    """No process was at work for ``seconds``, after ``at`` seconds of work."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Worktime:
    """When a search was at work, the oldest stretch first; at least one."""

    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], *, stretches: Sequence[Stretch]) -> "Worktime":
        """What the ledger notes; of one that notes no stretches a single one, from its first work to its last."""
        noted = stretches_before(stretches, trials=trials)
        if noted:
            return cls(noted)
        moments = [edge for trial in trials for epoch in trial.epochs for edge in work_of(epoch)]
        began = min(moments, default=0.0)
        return cls((Stretch(began=began, seconds=max(moments, default=0.0) - began),))

    @property
    def seconds(self) -> float:
        """All the time at work."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def pauses(self) -> list[Pause]:
        """When nothing was at work in between."""
        found, before = [], 0.0
        for stretch, following in pairwise(self.stretches):
            before += stretch.seconds
            seconds = following.began - stretch.began - stretch.seconds
            if seconds >= SHORTEST_PAUSE:
                found.append(Pause(before, seconds))
        return found

    def at(self, moment: float) -> float:
        """Seconds of work before a moment, which is in seconds since 1970."""
        return sum(min(max(moment - stretch.began, 0.0), stretch.seconds) for stretch in self.stretches)

    def place(self, worked: float, *, is_end: bool = False) -> float:
        """Where seconds of work stand on an axis on which a pause is a gap; what ends at a pause stands before its gap."""
        passed = [pause for pause in self.pauses if pause.at < worked or (pause.at == worked and not is_end)]
        return worked + GAP * self.seconds * len(passed)

    def ticks(self) -> dict[float, str]:
        """Where an axis has its ticks, and what they say."""
        step = next((step for step in STEPS if self.seconds <= step * TICKS), self.seconds / TICKS)
        marks = [step * number for number in range(int(self.seconds / step) + 1)]
        return {self.place(mark): duration(mark) if mark else "0" for mark in marks}


def work_of(epoch: EpochRecord) -> tuple[float, float]:
    """Between which moments, seconds since 1970, an epoch was at work; with the start of its leg where it began one."""
    end = epoch.recorded.timestamp()
    return end - epoch.metrics.get("usage/seconds", 0.0) - epoch.metrics.get("usage/start_seconds", 0.0), end
