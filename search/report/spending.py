"""What a search's time was spent on, from what each epoch says."""

from collections.abc import Sequence

from search.ledger.trials import Trial

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


def spending_line(spent: dict[str, float]) -> str:
    """``training 81 %, evaluation 9 %, …; frozen layers saved 3.1 min``; empty where nothing is known."""
    whole = sum(seconds for part, seconds in spent.items() if part in PARTS)
    if not whole:
        return ""
    shares = ", ".join(f"{part} {100 * seconds / whole:.0f} %" for part, seconds in spent.items() if part in PARTS)
    saved = spent.get(SAVED, 0.0)
    return shares + (f"; what was kept of frozen layers saved {saved / 60:.1f} trial-minutes" if saved else "")
