"""The value of every trial by epoch, the best trials in colour."""

from collections.abc import Sequence

import plotly.graph_objects as go

from search.ledger.trials import Trial, leaders
from search.report.figures import MUTED, PALETTE

COLOURED = 5
EVERY_EPOCH = 12  # epochs on an axis up to which each has its tick


def learning_curves_figure(trials: Sequence[Trial], *, metric: str) -> go.Figure:
    """A line for each trial with a value. Raises ValueError where none has one."""
    ranked = leaders(trials, metric=metric)
    if not ranked:
        raise ValueError("no trial has a value yet")
    figure = go.Figure()
    others = ranked[COLOURED:]
    if others:
        figure.add_trace(_together(others, metric=metric))
    for trial, colour in reversed(list(zip(ranked, PALETTE, strict=False))[:COLOURED]):
        values = trial.values(metric)
        line = {"color": colour, "width": 2.5}
        named = {"name": f"trial {trial.number}", "line": line, "mode": "lines+markers", "marker": {"size": 5}}
        figure.add_trace(go.Scatter(x=list(values), y=list(values.values()), **named))
    ticks = {"dtick": 1} if max(trial.last_epoch for trial in ranked) <= EVERY_EPOCH else {}
    figure.update_xaxes(title_text="epoch", **ticks).update_yaxes(title_text=metric)
    return figure.update_layout(height=380, legend={"traceorder": "reversed"})


def _together(trials: Sequence[Trial], *, metric: str) -> go.Scatter:
    """Trials as one trace, a break between two."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        values = trial.values(metric)
        x += [*values, None]
        y += [*values.values(), None]
        text += [f"trial {trial.number}: {value:.4f}" for value in values.values()] + [""]
    marks = {"marker": {"size": 4, "color": MUTED}, "line": {"color": MUTED, "width": 1}}
    return go.Scatter(
        x=x, y=y, text=text, hoverinfo="text", mode="lines+markers", name=f"{len(trials)} others", opacity=0.55, **marks
    )
