"""The page of a search: one HTML file that needs nothing else."""

import html
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from search.ledger.files import PAGE
from search.ledger.ledger import Ledger
from search.ledger.notes import TestScore
from search.ledger.stored import open_ledger
from search.ledger.trials import best_trial
from search.report.backbones import backbone_figures, backbones_html
from search.report.classes import classes_html
from search.report.configuration import configuration_html
from search.report.domains import domain_figures
from search.report.figures import drawing_script, figure_html
from search.report.growth import growth_figure
from search.report.headline import headline_html
from search.report.history import history_html
from search.report.html import Section, html_lines, html_row, html_table, page_html
from search.report.importances import importances, importances_figure
from search.report.learning_curves import learning_curves_figure
from search.report.mistakes import (
    RELIABILITY,
    confusion_figure,
    confusion_title,
    mistakes_sections,
    read_mistakes,
    reliability_figure,
)
from search.report.parallel import parallel_figure
from search.report.pareto import SECONDS, front_figures
from search.report.report import (
    candidate_text,
    certainty_texts,
    comparison_texts,
    known_in_test_texts,
    left_out_text,
    report_data,
    row_cells,
    split_text,
    time_texts,
)
from search.report.timeline import slots_figure, trials_figure
from search.report.worktime import Worktime
from search.space.spec import SearchSpec
from trainable.atomic import write_beside

GROWTH = "Best value by time"


def write_page(folder: Path) -> Path:
    """Write the search's page: one HTML file that needs nothing else."""
    data = report_data(folder)
    is_searched = "leaderboard" in data  # else only refreshes bear the name
    text = _search_page(data, folder=folder) if is_searched else page_html(data["name"], sections=[_history(data)])
    path = folder / PAGE
    with write_beside(path) as file:
        file.write(text.encode())
    return path


def _search_page(data: dict[str, Any], *, folder: Path) -> str:
    spec, ledger = open_ledger(folder)
    test = ledger.notes.test
    mistakes = _mistakes(test, folder=folder)
    drawn = _drawn(spec, ledger, folder=folder)
    first = {title: drawn.pop(title) for title in (GROWTH, _seconds_title(spec)) if title in drawn}
    figures = [Section(title, plot) for title, plot in drawn.items()]
    sections = [
        _history(data),
        *_next_sections(data["verdict"]),
        _best_configuration(spec, ledger),
        _leaderboard(data),
        Section("What the best takes", _fronts_html(data)),
        *figures,
        Section("Backbones before the search", backbones_html(ledger.notes.backbones)),
        Section("Classes on the test split", classes_html(test)),
        *mistakes_sections(mistakes),
        Section("Data", html_table([html_row([line]) for line in data["data"].get("lines", ())])),
        Section("Everything in words", html_lines(_summary_lines(data))),
    ]
    return page_html(
        data["name"],
        head=headline_html(data, plots=first),
        sections=sections,
        script=drawing_script() if drawn or first else "",
    )


def _history(data: dict[str, Any]) -> Section:
    return Section("History of the model", history_html(data["history"]))


def _next_sections(verdict: dict[str, Any] | None) -> list[Section]:
    """What limited the search, and what to type next; nothing before its final candidate was tested."""
    if verdict is None:
        return []
    steps = "".join(
        f"<li><code>{html.escape(step['command'])}</code> {html.escape(step['why'])}</li>" for step in verdict["steps"]
    )
    return [
        Section("What limited it", html_lines(verdict["limits"])),
        Section("What to do next", f"<ul>{steps}</ul>"),
    ]


def _best_configuration(spec: SearchSpec, ledger: Ledger) -> Section:
    best = best_trial(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
    return Section("Best configuration", "" if best is None else configuration_html(best, spec=spec))


def _summary_lines(data: dict[str, Any]) -> list[str]:
    states = ", ".join(f"{count} {standing}" for standing, count in sorted(data["standings"].items()))
    lines = [
        f"{states}; {data['epochs']} epochs in {data['seconds'] / 60:.1f} trial-minutes; data {data['fingerprint'][:12]}"
    ]
    if data["best_value"] is not None:
        lines.append(f"best: trial {data['best_trial']}, {data['metric']} {data['best_value']:.4f}")
    lines += [*comparison_texts(data), *time_texts(data)]
    if data["test"] is not None:
        lines.append(
            f"{split_text(data)}, {candidate_text(data)}: "
            + ", ".join(f"{name} {value:.4f}" for name, value in data["test"].items())
        )
        lines += known_in_test_texts(data)
    return lines + certainty_texts(data)


def _leaderboard(data: dict[str, Any]) -> Section:
    rows = [html_row(row_cells(row)) for row in data["leaderboard"]]
    heads = ("trial", data["metric"], "state", "epochs", "seconds", "values")
    more = f'<p class="soft">{left_out_text(data)}</p>' if left_out_text(data) else ""
    return Section("Leaderboard", (html_table(rows, heads=heads) or "<p>no trial has a value yet</p>") + more)


def _fronts_html(data: dict[str, Any]) -> str:
    """Of each cost the trials that none beats both in it and in the metric."""
    tables = []
    for cost, rows in data["fronts"].items():
        cells = [html_row([str(row["trial"]), f"{row['cost']:,.4g}", f"{row['value']:.4f}"]) for row in rows]
        tables.append(html_table(cells, heads=("trial", cost, data["metric"])))
    return "".join(tables)


def _mistakes(test: TestScore | None, *, folder: Path) -> dict[str, Any] | None:
    """What the final candidate gets wrong, where that was noted."""
    return None if test is None else read_mistakes(folder, trial=test.trial, soup=test.soup)


def figures_by_title(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> dict[str, go.Figure]:
    """The plots that the trials are enough for."""
    figures = {}
    for title, plot in _plots(spec, ledger, folder=folder).items():
        with suppress(ValueError, RuntimeError):
            figures[title] = plot()
    return figures


def _seconds_title(spec: SearchSpec) -> str:
    return f"{spec.search.metric} against {SECONDS}"


def _plots(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> dict[str, Callable[[], go.Figure]]:
    """What draws each plot, by its title; where the trials are too few for it, it raises a ValueError or a RuntimeError."""
    trials, metric, notes = ledger.trials(), spec.search.metric, ledger.notes
    scored = [trial for trial in trials if trial.is_searched and trial.best(metric) is not None]
    if not scored:
        return {}
    worktime = Worktime.of(trials, stretches=notes.stretches)
    weights = importances(trials, spec=spec)
    plots: dict[str, Callable[[], go.Figure]] = {
        GROWTH: lambda: growth_figure(trials, metric=metric, worktime=worktime),
        "Learning curves": lambda: learning_curves_figure(trials, metric=metric),
        "Parallel coordinates": lambda: parallel_figure(trials, spec=spec, shares=weights.shares),
        "Importances": lambda: importances_figure(weights, rung=spec.scheduler.rungs[0]),
        "Timeline by slot": lambda: slots_figure(trials, worktime=worktime),
        "Timeline by trial": lambda: trials_figure(trials, worktime=worktime),
    }
    mistakes = _mistakes(notes.test, folder=folder)
    if mistakes is not None:
        plots[confusion_title(mistakes["confusion"])] = lambda: confusion_figure(mistakes["confusion"])
        if mistakes.get("reliability"):
            plots[RELIABILITY] = lambda: reliability_figure(mistakes["reliability"])
    plots |= backbone_figures(notes.backbones)
    plots |= front_figures(scored, spec=spec)
    return plots | domain_figures(scored, spec=spec, folder=folder)


def _drawn(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> dict[str, str]:
    """Plots as HTML by title; of one that the trials are too few for, why there is none."""
    drawn = {}
    for title, plot in _plots(spec, ledger, folder=folder).items():
        try:
            drawn[title] = figure_html(plot(), title=title)
        except (ValueError, RuntimeError) as error:
            drawn[title] = f"<p>{html.escape(str(error))}</p>"
    return drawn
