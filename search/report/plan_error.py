"""How far off plans were: that of a search, and what those of earlier searches make of the next one."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.engine.clock import spent
from search.ledger.notes import Planned, SearchNotes
from search.ledger.stored import SPEC_FILE, is_finished, open_ledger
from search.ledger.trials import Trial
from search.report.spending import duration
from search.space.sections import BudgetSection
from trainable.errors import OutageError, UserError


def planned_of(plan: Mapping[str, Any]) -> Planned:
    """What of a plan is compared with the search later."""
    least, most = (3600 * plan["hours"][end] for end in ("least", "most"))
    return Planned(epochs=max(1, plan["epochs"] - plan["confirm_epochs"]), least=least, most=most)


def plan_error(notes: SearchNotes, *, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """How far off the plan was that a search was begun with; None without one.

    ``ratio`` is the seconds by the clock for each epoch of the trials, over those that were foreseen.
    """
    planned, seconds = notes.planned, spent(notes.stretches)
    epochs = sum(trial.last_epoch for trial in trials if trial.is_searched)
    if planned is None or not epochs or not seconds:
        return None
    ratio = seconds / epochs / planned.seconds_an_epoch
    return {"planned": asdict(planned), "epochs": epochs, "seconds": seconds, "ratio": ratio}


def plan_error_line(error: Mapping[str, Any] | None) -> str:
    """``4.0 to 9.2 min for 54 epochs; it took 14 min for 61, 1.4 times as long an epoch``; empty where there is nothing."""
    if error is None:
        return ""
    planned = error["planned"]
    return (
        f"{duration(planned['least'])} to {duration(planned['most'])} for {planned['epochs']} epochs; it took "
        f"{duration(error['seconds'])} for {error['epochs']}, {error['ratio']:.2g} times as long an epoch"
    )


def earlier_errors(searches: Path) -> list[float]:
    """The ratios of :func:`plan_error` of the finished searches in a folder that were planned."""
    ratios = []
    for path in sorted(searches.glob(f"*/{SPEC_FILE}")):
        with suppress(UserError, OutageError):  # one that is broken, or whose database does not answer
            _, ledger = open_ledger(path.parent)
            notes = ledger.notes
            trials = [] if notes.planned is None else ledger.trials()
            error = plan_error(notes, trials=trials)
            if error is not None and is_finished(ledger, trials=trials):
                ratios.append(error["ratio"])
    return ratios


def learnt_range(planned: Planned, *, budget: BudgetSection, ratios: Sequence[float]) -> dict[str, Any] | None:
    """What a plan comes to if it is as far off as earlier ones; None without any.

    Seconds where neither a time nor GPU-hours are given, with which a slower epoch means fewer of them and not more time.
    """
    if not ratios:
        return None
    ends = [min(ratios), max(ratios)]
    learnt: dict[str, Any] = {"searches": len(ratios), "ratios": ends}
    if budget.seconds is None and budget.gpu_hours is None:
        middle = planned.seconds_an_epoch * planned.epochs
        learnt["seconds"] = [middle * ratio for ratio in ends]
    return learnt


def learnt_line(learnt: Mapping[str, Any]) -> str:
    """``3 here took 0.9 to 1.6 times as long an epoch as planned; so this one 9.0 to 16 min``."""
    ratios = _between([f"{ratio:.2g}" for ratio in learnt["ratios"]])
    line = f"{learnt['searches']} here took {ratios} times as long an epoch as planned"
    if "seconds" not in learnt:
        return line
    return f"{line}; so this one {_between([duration(seconds) for seconds in learnt['seconds']])}"


def _between(ends: Sequence[str]) -> str:
    least, most = ends
    return least if least == most else f"{least} to {most}"
