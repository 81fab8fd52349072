"""The page of a search: one HTML file that needs nothing else."""

import html
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import get_param_importances

from search.engine.sampling import final_study, rung_study
from search.ledger.ledger import Ledger
from search.ledger.stored import open_ledger
from search.report.backbones import backbone_figures, backbones_html
from search.report.domains import domain_figures
from search.report.history import history_html
from search.report.html import html_row, page_html
from search.report.mistakes import (
    confusion_figure,
    confusion_title,
    folded_table,
    mistakes_html,
    read_mistakes,
)
from search.report.pareto import front_figures
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
from search.space.spec import SearchSpec
from trainable.atomic import write_beside

PAGE = "report.html"
FEWEST = 10  # trials of which importances are drawn: of fewer a forest of trees learns noise


def write_page(folder: Path) -> Path:
    """Write the search's page: one HTML file that needs nothing else."""
    data = report_data(folder)
    sections = [history_html(data["history"])]
    if "leaderboard" in data:
        spec, ledger = open_ledger(folder)
        mistakes = _mistakes(ledger, folder=folder)
        sections += [
            _verdict_html(data["verdict"]),
            _summary(data),
            _data_html(data),
            _table_html(data),
            _fronts_html(data),
            backbones_html(ledger.notes.backbones),
            _per_class(ledger),
            mistakes_html(mistakes),
            *_figures(spec, ledger, folder=folder, mistakes=mistakes),
        ]
    path = folder / PAGE
    with write_beside(path) as file:
        file.write(page_html(data["name"], sections=sections).encode())
    return path


def _verdict_html(verdict: dict[str, Any] | None) -> str:
    """What the search came to, in large letters, and what follows; nothing before its final candidate was tested."""
    if verdict is None:
        return ""
    told = [*verdict["others"], *([verdict["test"]] if verdict["test"] else [])]
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in told)
    limits = "".join(html_row([line]) for line in verdict["limits"])
    steps = "".join(
        f"<li><code>{html.escape(step['command'])}</code> {html.escape(step['why'])}</li>" for step in verdict["steps"]
    )
    return (
        f'<p class="verdict">{html.escape(verdict["sentence"])}</p>{lines}'
        + (f"<h2>What limited it</h2><table>{limits}</table>" if limits else "")
        + f"<h2>What to do next</h2><ul>{steps}</ul>"
    )


def _summary(data: dict[str, Any]) -> str:
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
    lines += certainty_texts(data)
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _data_html(data: dict[str, Any]) -> str:
    """What was noticed about the images before anything was trained."""
    rows = "".join(html_row([line]) for line in data["data"].get("lines", ()))
    return f"<h2>Data</h2><table>{rows}</table>" if rows else ""


def _table_html(data: dict[str, Any]) -> str:
    rows = "".join(html_row(row_cells(row)) for row in data["leaderboard"])
    best = json.dumps(data["best_config"], indent=1, sort_keys=True)
    heads = html_row(["trial", data["metric"], "state", "epochs", "seconds", "values"], tag="th")
    more = f"<p>{left_out_text(data)}</p>" if left_out_text(data) else ""
    board = f"<h2>Leaderboard</h2><table>{heads}{rows}</table>{more}"
    return f"{board}<h2>Best configuration</h2><pre>{html.escape(best)}</pre>"


def _fronts_html(data: dict[str, Any]) -> str:
    """Of each cost the trials that none beats both in it and in the metric."""
    tables = []
    for cost, rows in data["fronts"].items():
        if rows:
            cells = [html_row([str(row["trial"]), f"{row['cost']:,.6g}", f"{row['value']:.4f}"]) for row in rows]
            tables.append(f"<table>{html_row(['trial', cost, data['metric']], tag='th')}{''.join(cells)}</table>")
    return "<h2>What the best takes</h2>" + "".join(tables) if tables else ""


def _per_class(ledger: Ledger) -> str:
    """Recall, precision and count of every class on the test split, the worst recall first."""
    test = ledger.notes.test
    if test is None:
        return ""
    heads = html_row(["class", "recall", "precision", "F1", "images"], tag="th")
    worst_first = sorted(test.per_class.items(), key=lambda entry: (entry[1]["recall"], entry[0]))
    rows = [
        html_row([name, *(f"{scores[key]:.3f}" for key in ("recall", "precision", "f1")), str(scores["count"])])
        for name, scores in worst_first
    ]
    return f"<h2>Classes on the test split</h2>{folded_table(heads, rows=rows)}"


def _mistakes(ledger: Ledger, *, folder: Path) -> dict[str, Any] | None:
    """What the final candidate gets wrong, where that was noted."""
    test = ledger.notes.test
    return None if test is None else read_mistakes(folder, trial=test.trial, soup=test.soup)


def figures_by_title(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> dict[str, go.Figure]:
    """The plots that the trials are enough for."""
    figures = {}
    mistakes = _mistakes(ledger, folder=folder)
    for title, plot in _plots(spec, ledger, folder=folder, mistakes=mistakes).items():
        with suppress(ValueError, RuntimeError):
            figures[title] = plot()
    return figures


def _plots(
    spec: SearchSpec, ledger: Ledger, *, folder: Path, mistakes: dict[str, Any] | None
) -> dict[str, Callable[[], go.Figure]]:
    """What draws each plot, by its title; where the trials are too few for it, it raises a ValueError or a RuntimeError."""
    trials, metric, rungs = ledger.trials(), spec.search.metric, spec.scheduler.rungs
    scored = [trial for trial in trials if trial.is_searched and trial.best(metric) is not None]
    if not scored:
        return {}
    everything = final_study(scored, space=spec.space, metric=metric)
    first = rung_study(trials, space=spec.space, rung=rungs[0], metric=metric)
    plots: dict[str, Callable[[], go.Figure]] = {}
    if mistakes is not None:
        plots[confusion_title(mistakes["confusion"])] = lambda: confusion_figure(mistakes["confusion"])
    plots |= {
        "History": lambda: visualization.plot_optimization_history(everything, target_name=metric),
        "Learning curves": lambda: visualization.plot_intermediate_values(ledger.study),
        "Parallel coordinates": lambda: visualization.plot_parallel_coordinate(everything, target_name=metric),
        "Importances": lambda: _importances(first, rung=rungs[0]),
        "Timeline": lambda: visualization.plot_timeline(ledger.study),
    }
    plots |= backbone_figures(ledger.notes.backbones)
    plots |= front_figures(scored, spec=spec)
    return plots | domain_figures(scored, spec=spec, folder=folder)


def _figures(spec: SearchSpec, ledger: Ledger, *, folder: Path, mistakes: dict[str, Any] | None) -> list[str]:
    """Plots as HTML, the first with the script that all use; a plot that the trials are too few for is left out."""
    sections: list[str] = []
    for title, plot in _plots(spec, ledger, folder=folder, mistakes=mistakes).items():
        try:
            figure = plot()
        except (ValueError, RuntimeError) as error:
            sections.append(f"<h2>{title}</h2><p>too few results: {html.escape(str(error))}</p>")
            continue
        script = not any("plotly-graph-div" in section for section in sections)
        sections.append(f"<h2>{title}</h2>" + figure.to_html(full_html=False, include_plotlyjs=script))
    return sections


def _importances(study: Any, *, rung: int) -> go.Figure:
    if len(study.trials) < FEWEST:
        raise ValueError(
            f"{len(study.trials)} trials reached epoch {rung}, importances of fewer than {FEWEST} say nothing"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials without a value, which are left out
        importances = get_param_importances(study)
    figure = go.Figure(go.Bar(x=list(importances.values()), y=list(importances), orientation="h"))
    return figure.update_layout(xaxis_title=f"importance for the value at epoch {rung}")
