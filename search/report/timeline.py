"""Who was at work when: the legs of the trials by slot, with what waited, from the ledger's times."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from search.ledger.trials import Trial
from search.report.figures import MUTED, PALETTE
from search.report.spending import duration
from search.report.worktime import Worktime, work_of

MOST_TRIALS = 40  # of which each has a row of its own
PIXELS_A_SLOT, PIXELS_A_TRIAL = 30, 20
NARROWEST = 0.025  # of the whole axis: what is shorter has no number written on it
OVERLAP = 0.5  # seconds by which two legs of one slot may seem to overlap, by what is not measured of an epoch
ENDS = {
    "COMPLETE": ("trained to the end", PALETTE[2]),
    "PRUNED": ("stopped", PALETTE[0]),
    "RUNNING": ("open", PALETTE[5]),
    "FAILED": ("failed", PALETTE[3]),
}


@dataclass(frozen=True, kw_only=True)
class Leg:
    """What one slot did for a trial in one piece: epochs ``first`` to ``last``, from ``began`` to ``ended``, seconds of work."""

    trial: int
    state: str
    first: int
    last: int
    began: float
    ended: float


def legs_of(trials: Sequence[Trial], *, worktime: Worktime) -> list[Leg]:
    """All recorded work, in the order in which it began: a leg begins where an epoch says that it was started."""
    legs = []
    for trial in trials:
        pieces: list[list[Any]] = []
        for epoch in trial.epochs:
            if not pieces or "usage/start_seconds" in epoch.metrics:
                pieces.append([])
            pieces[-1].append(epoch)
        for piece in pieces:
            began, ended = (worktime.at(moment) for moment in (work_of(piece[0])[0], work_of(piece[-1])[1]))
            numbers = {"first": piece[0].number, "last": piece[-1].number}
            legs.append(Leg(trial=trial.number, state=trial.state, began=began, ended=ended, **numbers))
    return sorted(legs, key=lambda leg: (leg.began, leg.trial))


def slots_of(legs: Iterable[Leg]) -> list[list[Leg]]:
    """Legs by slot: each in the first that is free when it begins. Which machine a slot was, the ledger does not say."""
    slots: list[list[Leg]] = []
    for leg in legs:
        free = next((slot for slot in slots if slot[-1].ended <= leg.began + OVERLAP), None)
        if free is None:
            slots.append([leg])
        else:
            free.append(leg)
    return slots


def slots_figure(trials: Sequence[Trial], *, worktime: Worktime) -> go.Figure:
    """A row for each slot, with the trials that it trained. Raises ValueError where nothing was trained."""
    rows = {f"slot {number}": legs for number, legs in enumerate(slots_of(legs_of(trials, worktime=worktime)), start=1)}
    return _figure(rows, waiting=dict.fromkeys(rows, (0.0, worktime.seconds)), worktime=worktime, pixels=PIXELS_A_SLOT)


def trials_figure(trials: Sequence[Trial], *, worktime: Worktime) -> go.Figure:
    """A row for each of the trials with most work, by number: when it was trained, when it waited between its legs.

    Raises ValueError where nothing was trained.
    """
    longest = sorted(trials, key=lambda trial: -trial.seconds)[:MOST_TRIALS]
    rows: dict[str, list[Leg]] = {}
    for leg in sorted(legs_of(longest, worktime=worktime), key=lambda leg: (leg.trial, leg.began)):
        rows.setdefault(f"trial {leg.trial}", []).append(leg)
    waiting = {row: (legs[0].began, legs[-1].ended) for row, legs in rows.items()}
    return _figure(rows, waiting=waiting, worktime=worktime, pixels=PIXELS_A_TRIAL)


def mark_pauses(figure: go.Figure, *, worktime: Worktime) -> None:
    """Shade the gaps of an axis that shows time at work, and say how long each was."""
    for pause in worktime.pauses:
        bounds = worktime.place(pause.at, is_end=True), worktime.place(pause.at)
        figure.add_vrect(x0=bounds[0], x1=bounds[1], fillcolor=MUTED, opacity=0.15, line_width=0)
        words = {
            "text": f"paused {duration(pause.seconds)}",
            "textangle": -90,
            "showarrow": False,
            "font": {"size": 10},
        }
        figure.add_annotation(x=sum(bounds) / 2, y=0, yref="paper", yanchor="bottom", **words)


def _figure(
    rows: Mapping[str, Sequence[Leg]], *, waiting: Mapping[str, tuple[float, float]], worktime: Worktime, pixels: int
) -> go.Figure:
    if not rows:
        raise ValueError("nothing was trained yet")
    figure = go.Figure([_waiting(waiting, worktime=worktime)])
    for state, (name, colour) in ENDS.items():
        legs = [(row, leg) for row, of_row in rows.items() for leg in of_row if leg.state == state]
        if legs:
            figure.add_trace(_bars(legs, name=name, colour=colour, worktime=worktime))
    mark_pauses(figure, worktime=worktime)
    ticks = worktime.ticks()
    figure.update_xaxes(title_text="time at work", tickvals=list(ticks), ticktext=list(ticks.values()))
    figure.update_yaxes(categoryorder="array", categoryarray=list(rows), autorange="reversed")
    return figure.update_layout(barmode="overlay", bargap=0.2, height=130 + pixels * len(rows))


def _bars(legs: Sequence[tuple[str, Leg]], *, name: str, colour: str, worktime: Worktime) -> go.Bar:
    bounds = [(worktime.place(leg.began), worktime.place(leg.ended, is_end=True)) for _, leg in legs]
    whole = worktime.place(worktime.seconds, is_end=True)
    return go.Bar(
        orientation="h",
        name=name,
        marker={"color": colour},
        y=[row for row, _ in legs],
        base=[began for began, _ in bounds],
        x=[ended - began for began, ended in bounds],
        text=[
            str(leg.trial) if ended - began >= NARROWEST * whole else ""
            for (_, leg), (began, ended) in zip(legs, bounds, strict=True)
        ],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertext=[
            f"trial {leg.trial}, epochs {leg.first} to {leg.last}: {duration(leg.ended - leg.began)}" for _, leg in legs
        ],
        hoverinfo="text",
    )


def _waiting(spans: Mapping[str, tuple[float, float]], *, worktime: Worktime) -> go.Bar:
    """What lies behind the work of each row; none in a pause."""
    edges = [0.0, *(pause.at for pause in worktime.pauses), worktime.seconds]
    pieces = [
        (row, max(began, start), min(ended, end))
        for row, (began, ended) in spans.items()
        for start, end in pairwise(edges)
        if max(began, start) < min(ended, end)
    ]
    places = [(worktime.place(start), worktime.place(end, is_end=True)) for _, start, end in pieces]
    return go.Bar(
        orientation="h",
        name="waiting",
        y=[row for row, _, _ in pieces],
        base=[start for start, _ in places],
        x=[end - start for start, end in places],
        width=0.25,
        marker={"color": MUTED, "opacity": 0.45, "line": {"width": 0}},
        hoverinfo="skip",
    )
