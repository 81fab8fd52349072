"""How good the best was after how much work: a point for each trial, and the line of the best so far."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from search.ledger.trials import Trial
from search.report.figures import MUTED, PALETTE
from search.report.timeline import mark_pauses
from search.report.worktime import Worktime
from trainable.metrics import best_epoch, is_better


def growth(trials: Sequence[Trial], *, metric: str, worktime: Worktime) -> list[dict[str, Any]]:
    """Each trial's best value and the seconds of work after which it was there, in that order; ``is_record`` where none before
    was as good. Failed trials have no say.
    """
    rows = []
    for trial in trials:
        values = trial.values(metric)
        best = best_epoch(values, metric=metric)
        if best is None or trial.state == "FAILED":
            continue
        moment = next(epoch.recorded.timestamp() for epoch in trial.epochs if epoch.number == best)
        rows.append({"trial": trial.number, "worked": worktime.at(moment), "value": values[best]})
    record: float | None = None
    ordered = sorted(rows, key=lambda row: (row["worked"], row["trial"]))
    for row in ordered:
        row["is_record"] = is_better(row["value"], record, metric=metric)
        record = row["value"] if row["is_record"] else record
    return ordered


def growth_figure(trials: Sequence[Trial], *, metric: str, worktime: Worktime) -> go.Figure:
    """The trials by time at work, with the best so far. Raises ValueError where none has a value."""
    rows = growth(trials, metric=metric, worktime=worktime)
    if not rows:
        raise ValueError("no trial has a value yet")
    records = [row for row in rows if row["is_record"]]
    steps = [(worktime.place(row["worked"], is_end=True), row["value"]) for row in records]
    steps.append((worktime.place(worktime.seconds, is_end=True), records[-1]["value"]))
    figure = go.Figure(
        [
            go.Scatter(
                x=[worktime.place(row["worked"], is_end=True) for row in rows],
                y=[row["value"] for row in rows],
                text=[f"trial {row['trial']}: {row['value']:.4f}" for row in rows],
                hoverinfo="text",
                mode="markers",
                name="trials",
                marker={"color": MUTED, "size": 7},
            ),
            go.Scatter(
                x=[place for place, _ in steps],
                y=[value for _, value in steps],
                mode="lines",
                name="best so far",
                hoverinfo="skip",
                line={"shape": "hv", "width": 3, "color": PALETTE[0]},
            ),
        ]
    )
    mark_pauses(figure, worktime=worktime)
    ticks = worktime.ticks()
    figure.update_xaxes(
        title_text="time at work", rangemode="tozero", tickvals=list(ticks), ticktext=list(ticks.values())
    )
    return figure.update_yaxes(title_text=metric)
