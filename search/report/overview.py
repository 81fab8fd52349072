"""Where searches stand, read from their ledgers."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from search.engine.clock import spent
from search.ledger.lease import is_held
from search.ledger.ledger import Ledger
from search.ledger.stored import SPEC_FILE, is_finished, open_ledger
from search.ledger.trials import POOLED_PROBE, ZERO_SHOT, Trial, best_trial, probe_name
from search.report.plan_error import plan_error
from search.report.spending import clock_line, spending, spending_line
from search.report.verdict import search_verdict
from search.report.winner import winner_data
from trainable.errors import OutageError, UserError


def overview(folder: Path) -> dict[str, Any]:
    """A search in figures: state, trials by state, epochs, seconds, the best trial and its test score."""
    spec, ledger = open_ledger(folder)
    trials, metric, notes = ledger.trials(), spec.search.metric, ledger.notes
    test = notes.test
    best = best_trial(trials, metric=metric, choose_by=spec.search.choose_by)
    verdict = search_verdict(trials, spec=spec, notes=notes)
    return {
        "name": spec.search.name,
        "folder": str(folder),
        "state": _state(folder, trials, ledger),
        "trials": dict(Counter(trial.state for trial in trials if trial.is_searched)),
        "standings": dict(Counter(trial.standing for trial in trials if trial.is_searched)),
        "trials_asked": spec.search.trials,
        "epochs": sum(trial.last_epoch for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 1),
        "spending": {part: round(seconds, 1) for part, seconds in spending(trials).items()},
        "clock": {
            "asked_seconds": spec.search.budget.seconds,
            "spent_seconds": round(spent(notes.stretches), 1),
            "stretches": [asdict(stretch) for stretch in notes.stretches],
            "line": clock_line(spec.search.budget, stretches=notes.stretches),
        },
        "plan_error": plan_error(notes, trials=trials),
        "metric": metric,
        "best_trial": best.number if best else None,
        "best_value": best.best(metric) if best else None,
        "probe": probe_text(best),
        "verdict": None if verdict is None else verdict.as_dict(),
        "winner": winner_data(trials, notes=notes, metric=metric, choose_by=spec.search.choose_by),
        "test": None if test is None else dict(test.metrics),
        "test_intervals": {} if test is None else {name: list(bounds) for name, bounds in test.intervals.items()},
        "oracle": notes.data.oracle,
        "test_oracle": None if test is None or test.oracle is None else dict(test.oracle.metrics),
        "test_reads": 0 if test is None else test.reads,
        "fingerprint": notes.data.fingerprint,
    }


def probe_text(best: Trial | None) -> str | None:
    """What is said where the best of a search is the probe of frozen features; None where it is a trial of its own."""
    if best is None or best.is_searched:
        return None
    name = probe_name(best)
    what = {POOLED_PROBE: "linear probe", ZERO_SHOT: "zero-shot head"}.get(
        name, f"probe of {name.removeprefix('probe_')}"
    )
    return (
        f"the {what} beats every trial: the best is the probe, trial {best.number}; take it, or search longer or deeper"
    )


def overviews(folder: Path) -> list[dict[str, Any]]:
    """Every search kept in a folder, by name; raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"--folder: {str(folder)!r} does not exist; no search has been run here")
    return [_overview_or_problem(path.parent) for path in sorted(folder.glob(f"*/{SPEC_FILE}"))]


def _overview_or_problem(folder: Path) -> dict[str, Any]:
    """One search, or what keeps it from being read: one that is broken must not hide the others."""
    try:
        return overview(folder)
    except (UserError, OutageError) as error:
        return {"name": folder.name, "folder": str(folder), "state": "unreadable", "problem": str(error)}


def status_table(result: dict[str, Any]) -> Table:
    """One search as two columns."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _cells(result).items():
        table.add_row(key, value)
    return table


def list_table(results: list[dict[str, Any]]) -> Table:
    """Searches as rows."""
    table = Table("name", "state", "trials", "epochs", "best", box=None, pad_edge=False)
    for result in results:
        if "problem" in result:
            table.add_row(result["name"], result["state"], result["problem"])
            continue
        cells = _cells(result)
        table.add_row(result["name"], result["state"], cells["trials"], cells["epochs"], cells["best"])
    return table


def _state(folder: Path, trials: list[Trial], ledger: Ledger) -> str:
    if is_held(folder):
        return "running"
    return "finished" if is_finished(ledger, trials=trials) else "interrupted"


def _cells(result: dict[str, Any]) -> dict[str, str]:
    states = ", ".join(f"{count} {standing}" for standing, count in sorted(result["standings"].items()))
    asked = "" if result["trials_asked"] is None else f" of {result['trials_asked']}"
    value = result["best_value"]
    test = result["test"]
    return {
        "name": result["name"],
        "state": result["state"],
        "trials": f"{sum(result['trials'].values())}{asked}: {states}" if states else "none yet",
        "epochs": f"{result['epochs']} in {result['seconds'] / 60:.1f} trial-minutes",
        **({"clock": result["clock"]["line"]} if result["clock"]["line"] else {}),
        "time": spending_line(result["spending"]) or "not known",
        "best": "none yet" if value is None else f"{result['metric']} {value:.4f}, trial {result['best_trial']}",
        **_verdict_cells(result),
        "test": "not measured yet"
        if test is None
        else ", ".join(f"{name} {number:.4f}" for name, number in test.items()),
        "data": result["fingerprint"][:12],
    }


def _verdict_cells(result: dict[str, Any]) -> dict[str, str]:
    """The verdict; before there is one, that the best is a probe."""
    if result["verdict"] is not None:
        return {"verdict": result["verdict"]["sentence"]}
    return {"probe": result["probe"]} if result["probe"] else {}
