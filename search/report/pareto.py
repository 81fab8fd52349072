"""What the best takes: the trials that no other beats both in the metric and in a cost."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go

from search.ledger.trials import Trial, leaders
from search.space.spec import SearchSpec

SECONDS = "seconds"  # of training, of all epochs of a trial


def fronts(trials: Sequence[Trial], *, spec: SearchSpec) -> dict[str, list[dict[str, Any]]]:
    """The front of the metric against the seconds, and against each measure that is constrained; plain data.

    Its rows, cheapest first, have ``trial``, ``cost`` and ``value``: each is better than all that cost as little or less.
    """
    metric = spec.search.metric
    ordered = leaders(trials, metric=metric)
    return {cost: _front(ordered, cost=cost, metric=metric) for cost in (SECONDS, *spec.search.constraints)}


def front_figures(trials: Sequence[Trial], *, spec: SearchSpec) -> dict[str, Callable[[], go.Figure]]:
    """Plots by title: each front that has trials, with all of them behind it."""
    metric = spec.search.metric
    return {
        f"{metric} against {cost}": partial(
            _figure, _points(trials, cost=cost, metric=metric), front=front, cost=cost, metric=metric
        )
        for cost, front in fronts(trials, spec=spec).items()
        if front
    }


def _front(ordered: Sequence[Trial], *, cost: str, metric: str) -> list[dict[str, Any]]:
    """From trials best first: whoever is cheaper than all before it."""
    rows: list[dict[str, Any]] = []
    for row in _points(ordered, cost=cost, metric=metric):
        if not rows or row["cost"] < rows[-1]["cost"]:
            if rows and row["value"] == rows[-1]["value"]:
                rows.pop()  # as good for less
            rows.append(row)
    return rows[::-1]


def _points(trials: Sequence[Trial], *, cost: str, metric: str) -> list[dict[str, Any]]:
    """The trials that have both, in their order."""
    rows = [{"trial": trial.number, "cost": _cost(trial, cost), "value": trial.best(metric)} for trial in trials]
    return [row for row in rows if row["cost"] is not None and row["value"] is not None]


def _cost(trial: Trial, cost: str) -> float | None:
    return (trial.seconds or None) if cost == SECONDS else trial.measured.get(cost)


def _figure(rows: list[dict[str, Any]], *, front: list[dict[str, Any]], cost: str, metric: str) -> go.Figure:
    traces = [
        go.Scatter(
            x=[row["cost"] for row in shown],
            y=[row["value"] for row in shown],
            text=[f"trial {row['trial']}" for row in shown],
            mode=mode,
            name=name,
        )
        for shown, mode, name in ((rows, "markers", "trials"), (front, "lines+markers", "not beaten in both"))
    ]
    return go.Figure(traces).update_layout(xaxis_title=cost, yaxis_title=metric)
