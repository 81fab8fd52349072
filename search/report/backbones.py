"""What the look at the backbones before a search found: their scores against what they cost."""

from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go

from search.ledger.notes import BackboneChoice
from search.report.html import html_row, html_table

SHOWN = 10  # backbones in a terminal; the page has all
SCORES = ("logme", "h_score", "probe")
HEADS = ("backbone", "LogME", "H-score", "probe", "GMACs", "ms an image", "pixels", "parameters", "")


def backbone_lines(choice: BackboneChoice | None) -> list[str]:
    """The best backbones, a line each, how many more there are, and which there was no time for."""
    if choice is None:
        return []
    lines = []
    for name in _ordered(choice)[:SHOWN]:
        figures = choice.scores[name]
        measures = ", ".join(f"{key} {figures[key]:.4g}" for key in SCORES if key in figures)
        cost = f", {figures['gmacs']:.3g} GMACs an image" if "gmacs" in figures else ""
        lines.append(f"backbone {name}: {measures}{cost}{'' if name in choice.kept else ', left out'}")
    more = len(choice.scores) - len(lines)
    if more > 0:
        lines.append(f"backbones: {more} more scored and left out; the page has them")
    if choice.not_scored:
        lines.append(f"backbones: {_not_scored(choice)}")
    return lines


def backbones_html(choice: BackboneChoice | None) -> str:
    """All backbones as a table, best first; nothing where none were scored."""
    if choice is None:
        return ""
    rows = [html_row(_cells(name, choice=choice)) for name in _ordered(choice)]
    beneath = f"<p>{_not_scored(choice)}</p>" if choice.not_scored else ""
    return html_table(rows, heads=HEADS) + beneath


def backbone_figures(choice: BackboneChoice | None) -> dict[str, Callable[[], go.Figure]]:
    """The plot by its title: the probe's accuracy against the cost of an image; none of ledgers that have neither."""
    points = {} if choice is None else {n: s for n, s in choice.scores.items() if "probe" in s and "gmacs" in s}
    if choice is None or not points:
        return {}
    return {"Backbones: probe against cost": lambda: _figure(points, choice=choice)}


def _ordered(choice: BackboneChoice) -> list[str]:
    """Names, those that are searched first."""
    by = choice.by
    names = list(choice.scores)
    if by is None:  # of older ledgers
        return sorted(names, key=lambda name: name not in choice.kept)
    return sorted(names, key=lambda name: -choice.scores[name][by])


def _not_scored(choice: BackboneChoice) -> str:
    every = len(choice.scores) + len(choice.not_scored)
    return f"{len(choice.not_scored)} of {every} not scored for want of time (select_backbones.minutes), the costliest"


def _cells(name: str, *, choice: BackboneChoice) -> list[str]:
    figures = choice.scores[name]

    def cell(key: str, form: str, *, times: float = 1.0) -> str:
        return format(times * figures[key], form) if key in figures else ""

    return [
        name,
        *(cell(key, ".4f") for key in SCORES),
        cell("gmacs", ".3g"),
        cell("seconds_per_image", ".3g", times=1000),
        cell("image_size", ".0f"),
        cell("parameters", ",.0f"),
        "searched" if name in choice.kept else "left out",
    ]


def _figure(points: Mapping[str, Mapping[str, float]], *, choice: BackboneChoice) -> go.Figure:
    traces: list[Any] = []
    for is_kept, label in ((True, "searched"), (False, "left out")):
        names = [name for name in points if (name in choice.kept) == is_kept]
        seconds = [f"{name}<br>{1000 * points[name]['seconds_per_image']:.3g} ms an image" for name in names]
        traces.append(
            go.Scatter(
                x=[points[name]["gmacs"] for name in names],
                y=[points[name]["probe"] for name in names],
                text=seconds,
                mode="markers",
                name=label,
            )
        )
    figure = go.Figure(traces).update_xaxes(title="billions of multiply-adds of an image", type="log")
    return figure.update_yaxes(title="linear probe, balanced accuracy on validation images")
