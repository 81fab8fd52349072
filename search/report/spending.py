"""What a search's time was spent on, from what each epoch says."""

from collections.abc import Sequence

from search.engine.clock import spent
from search.ledger.notes import Stretch
from search.ledger.trials import Trial
from search.space.sections import BudgetSection

# What the seconds of an epoch's `usage/…_seconds` are, in the order in which a reader wants them.
PARTS = {
    "training": "updating networks",
    "evaluation": "evaluating them",
    "prefix": "computing what frozen layers make of images, once",
    "view": "varying and reading images",
    "waiting": "waiting for what another computes",
    "start": "starting legs",
    "checkpoint": "writing checkpoints",
}
SAVED = "prefix_saved"


def spending(trials: Sequence[Trial]) -> dict[str, float]:
    """Seconds of all epochs by part, those of older searches without any; and ``prefix_saved``, what was not computed again."""
    totals = dict.fromkeys((*PARTS, SAVED), 0.0)
    for trial in trials:
        for epoch in trial.epochs:
            for part in totals:
                totals[part] += epoch.metrics.get(f"usage/{part}_seconds", 0.0)
    return {part: seconds for part, seconds in totals.items() if seconds}


def clock_line(budget: BudgetSection, *, stretches: Sequence[Stretch]) -> str:
    """``30 min asked, 12 min spent, 18 min left``, of the time by the clock; without a bound what is spent, if known."""
    used, asked = spent(stretches), budget.seconds
    times = "" if len(stretches) < 2 else f" in {len(stretches)} stretches"
    if asked is None:
        return f"{duration(used)} spent{times}" if stretches else ""
    return f"{duration(asked)} asked, {duration(used)} spent{times}, {duration(max(0.0, asked - used))} left"


def duration(seconds: float) -> str:
    """A time for people: ``45 s``, ``12 min``, ``1.5 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spending_line(spent: dict[str, float]) -> str:
    """``training 81 %, evaluation 9 %, …; frozen layers saved 3.1 min``; empty where nothing is known."""
    whole = sum(seconds for part, seconds in spent.items() if part in PARTS)
    if not whole:
        return ""
    shares = ", ".join(f"{part} {100 * seconds / whole:.0f} %" for part, seconds in spent.items() if part in PARTS)
    saved = spent.get(SAVED, 0.0)
    return shares + (f"; what was kept of frozen layers saved {saved / 60:.1f} trial-minutes" if saved else "")
