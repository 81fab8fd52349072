"""Searches as a notebook wants them: run, opened again, as tables and figures."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from search.ledger.stored import open_ledger
from search.ledger.trials import Trial, leaders
from search.notebook.model import Model
from search.report.page import figures_by_title
from search.report.report import report_data
from search.run.session import run_on_screen
from search.space.lint import lint
from search.space.loading import load as load_space
from search.space.preflight import check_code
from search.space.spec import resume_command
from trainable.config.validation import as_text
from trainable.errors import OutageError
from trainable.terminal import Terminal


def run(
    space: str | Path,
    *,
    data: str | Path | None = None,
    minutes: float | None = None,
    trials: int | None = None,
    name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> "Search":
    """Run the search of a space file, or go on with it, and open it.

    ``changes`` are values by dotted path in place of the file's, as ``--set`` of the command. Raises UserError for a mistake,
    OutageError for what cannot be done now; every finished epoch is kept, and the same call goes on.
    """
    overrides = [f"{path}={as_text(value)}" for path, value in (changes or {}).items()]
    spec = load_space(
        Path(space), overrides, data=None if data is None else str(data), trials=trials, minutes=minutes, name=name
    )
    screen = Terminal()
    for note in lint(spec):
        screen.print(f"note: {note}")
    check_code(spec)
    outcome, lines = run_on_screen(spec, address=address, screen=screen, began=time.time())
    for line in lines:
        screen.print(line)
    if outcome.status == "failed":
        raise OutageError(f"{outcome.reason}; every finished epoch is kept. To go on: {resume_command(spec)}")
    return Search(outcome.folder)


def load(name: str | Path, *, folder: str | Path = "searches") -> "Search":
    """Open a search by its name in a folder of searches, or by its own folder's path. Raises UserError where there is none."""
    path = Path(name)
    return Search(path if len(path.parts) > 1 else Path(folder) / path)


class Search:
    """A search as its ledger has it now, running or not; nothing is kept of what was read."""

    def __init__(self, folder: Path) -> None:
        open_ledger(folder)  # a name that is none is told here
        self.folder = folder

    def __repr__(self) -> str:
        report = self.report()
        value = report["best_value"]
        best = "no result yet" if value is None else f"{report['metric']} {value:.4f}, trial {report['best_trial']}"
        return f"Search({report['name']!r}, {report['state']}, {best})"

    def report(self) -> dict[str, Any]:
        """What ``report --json`` says: plain data."""
        return report_data(self.folder)

    def trials(self) -> pd.DataFrame:
        """A row for each trial, by number: state, reason, origin, best value, epochs, seconds, searched values by path."""
        spec, ledger = open_ledger(self.folder)
        rows = [_row(trial, metric=spec.search.metric) for trial in ledger.trials()]
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    def leaderboard(self) -> pd.DataFrame:
        """The rows of :meth:`trials` that have a value, the best first."""
        spec, ledger = open_ledger(self.folder)
        ordered = leaders(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
        return self.trials().loc[[trial.number for trial in ordered]]

    def epochs(self) -> pd.DataFrame:
        """A row for each epoch of each trial, with every metric by its name."""
        _, ledger = open_ledger(self.folder)
        rows = [
            {"trial": trial.number, "epoch": epoch.number, **epoch.metrics}
            for trial in ledger.trials()
            for epoch in trial.epochs
        ]
        return pd.DataFrame(rows, columns=None if rows else ["trial", "epoch"]).set_index(["trial", "epoch"])

    def figures(self) -> dict[str, go.Figure]:
        """The figures of the report page by title."""
        spec, ledger = open_ledger(self.folder)
        return figures_by_title(spec, ledger, folder=self.folder)

    @property
    def best(self) -> Model:
        """The final candidate as it is handed over. Raises UserError for a search that is not finished."""
        return Model.of_search(self.folder)


def _row(trial: Trial, *, metric: str) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "origin": trial.origin,
        metric: trial.best(metric),
        "epochs": trial.last_epoch,
        "seconds": trial.seconds,
        **trial.searched,
    }
