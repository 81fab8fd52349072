"""What the best takes: the trials that no other beats both in the metric and in a cost."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go

from search.ledger.trials import Trial, leaders
from search.report.figures import MUTED, PALETTE
from search.report.spending import duration
from search.space.spec import SearchSpec

SECONDS = "seconds"  # of training, of all epochs of a trial
_FRONT_LINE = {"color": PALETTE[3], "width": 2, "shape": "hv"}


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
    figure = go.Figure(
        [
            _scatter(rows, name="trials", mode="markers", marker={"color": MUTED, "size": 7}),
            _scatter(front, name="not beaten in both", mode="lines+markers", marker={"size": 8}, line=_FRONT_LINE),
        ]
    )
    ticks = _ticks([row["cost"] for row in rows])
    texts = [duration(tick) if cost == SECONDS else f"{tick:,g}" for tick in ticks]
    title = "time to train it" if cost == SECONDS else cost
    figure.update_xaxes(title_text=f"{title} (logarithmic)", type="log", tickvals=ticks, ticktext=texts)
    return figure.update_yaxes(title_text=metric)


def _ticks(costs: list[float]) -> list[float]:
    """One and three times each power of ten among these costs and beside them."""
    powers = range(math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs))) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 3)]


def _scatter(rows: list[dict[str, Any]], **look: Any) -> go.Scatter:
    texts = [f"trial {row['trial']}: {row['value']:.4f}, {row['cost']:,.4g}" for row in rows]
    places = {"x": [row["cost"] for row in rows], "y": [row["value"] for row in rows]}
    return go.Scatter(**places, text=texts, hoverinfo="text", **look)
