"""Parallel coordinates: each trial a line through its searched values, what it did not have in place."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from search.ledger.trials import Trial, leaders
from search.report.figures import MUTED, PALETTE
from search.space.dimension import Choice, Dimension, Number
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.validation import as_text

NONE = "–"  # what is written where a trial does not have the value
BENEATH = -0.16  # where that stands under an axis, of the axis' length
PIXELS_AN_AXIS, NARROWEST = 150, 980  # pixels; what a desk screen has beside the table of contents
LONGEST = 18  # characters of a value that is written at an axis
TICKS = 5  # of a number's axis at most
BEST_SHARE = 0.1  # of the trials that are drawn in colour


def axes(trials: Sequence[Trial], *, spec: SearchSpec, shares: Mapping[str, float]) -> list[str]:
    """The searched paths that any of the trials has, the most important first, the others behind them in their order."""
    paths = [path for path in spec.space.dimensions if any(path in trial.searched for trial in trials)]
    return sorted(paths, key=lambda path: -shares.get(path, 0.0))


def place(value: Value, *, dimension: Dimension) -> float:
    """Where a value stands on its axis, 0 to 1: numbers on the scale they are searched on, choices in their order.

    What lies beyond the range stands at its end.
    """
    if isinstance(dimension, Choice):
        number = next((at for at, member in enumerate(dimension.members) if member == value), 0)
        return number / max(1, len(dimension.members) - 1)
    assert isinstance(value, int | float)
    low, high = dimension.low, dimension.high
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def ticks(dimension: Dimension) -> dict[float, str]:
    """What is written at an axis, by place: every choice, both bounds of a number and round values between them."""
    if isinstance(dimension, Choice):
        return {place(member, dimension=dimension): _short(_written(member)) for member in dimension.members}
    values = [dimension.low, *_round_values(dimension), dimension.high]
    return {place(value, dimension=dimension): f"{value:.4g}" for value in values}


def parallel_figure(trials: Sequence[Trial], *, spec: SearchSpec, shares: Mapping[str, float]) -> go.Figure:
    """A line for each trial with a value, the best in colour. Raises ValueError where there are fewer than two."""
    metric = spec.search.metric
    ranked = [trial for trial in leaders(trials, metric=metric) if trial.is_searched]
    if len(ranked) < 2:
        raise ValueError("fewer than two trials have a value")
    paths = axes(ranked, spec=spec, shares=shares)
    values = {trial.number: value for trial in ranked if (value := trial.best(metric)) is not None}
    lowest, highest = min(values.values()), max(values.values())
    result = Number(low=lowest, high=highest if highest > lowest else lowest + 1)
    dimensions = {path: spec.space.dimensions[path] for path in paths} | {metric: result}
    lines = {trial.number: {**trial.searched, metric: values[trial.number]} for trial in ranked}
    num_best = 1 + round(BEST_SHARE * len(ranked))
    groups = {
        "others": (ranked[num_best:][::-1], {"color": MUTED, "width": 1}, 0.45),
        "best tenth": (ranked[1:num_best][::-1], {"color": PALETTE[0], "width": 2}, 0.9),
        "the best": (ranked[:1], {"color": PALETTE[3], "width": 4}, 1.0),
    }
    figure = go.Figure()
    for name, (group, line, opacity) in groups.items():
        if group:
            drawn = [lines[trial.number] for trial in group]
            figure.add_trace(_lines(drawn, numbers=group, dimensions=dimensions, name=name, line=line, opacity=opacity))
    return _with_axes(figure, dimensions=dimensions, metric=metric)


def _lines(
    rows: Sequence[Mapping[str, Value]],
    *,
    numbers: Sequence[Trial],
    dimensions: Mapping[str, Dimension],
    name: str,
    line: dict[str, object],
    opacity: float,
) -> go.Scatter:
    """Trials as one trace, a break between two."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for row, trial in zip(rows, numbers, strict=True):
        x += [*range(len(dimensions)), None]
        y += [place(row[path], dimension=dim) if path in row else BENEATH for path, dim in dimensions.items()] + [None]
        text += [f"trial {trial.number}, {path}: {_written(row.get(path, NONE))}" for path in dimensions] + [""]
    return go.Scatter(
        x=x, y=y, text=text, hoverinfo="text", mode="lines", name=name, line=line, opacity=opacity, connectgaps=False
    )


def _with_axes(figure: go.Figure, *, dimensions: Mapping[str, Dimension], metric: str) -> go.Figure:
    shapes, notes = [], []  # given at once, since a figure looks at all that it has with each that is added
    for column, (path, dimension) in enumerate(dimensions.items()):
        line = {"color": MUTED, "width": 1}
        shapes.append({"type": "line", "x0": column, "x1": column, "y0": 0, "y1": 1, "line": line})
        written = ticks(dimension) | ({BENEATH: NONE} if dimension.when else {})
        for height, text in written.items():
            size = 11 if height >= 0 else 18
            notes.append({"x": column, "y": height, "text": text, "xshift": 4, "font": {"size": size}})
        section, _, name = path.rpartition("." if path != metric else "/")
        title = f"{section}<br><b>{name}</b>" if section else f"<b>{name}</b>"
        notes.append({"x": column, "y": 1.06, "yanchor": "bottom", "text": title, "align": "left"})
    figure.update_xaxes(visible=False, range=[-0.1, len(dimensions) - 0.15])
    figure.update_yaxes(visible=False, range=[BENEATH - 0.06, 1.3])
    width = max(NARROWEST, PIXELS_AN_AXIS * len(dimensions))
    annotations = [{"showarrow": False, "xanchor": "left", **note} for note in notes]
    figure.update_layout(shapes=shapes, annotations=annotations)
    return figure.update_layout(height=430, width=width, legend={"y": -0.02, "yanchor": "top"})


def _round_values(dimension: Number) -> list[float]:
    """Powers of ten, or evenly spaced values, inside the bounds."""
    low, high = dimension.low, dimension.high
    if dimension.log:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        every = math.ceil(max(1, len(powers)) / TICKS)
        return [10.0**power for power in powers if power % every == 0 and low < 10.0**power < high]
    return [low + (high - low) * part / (TICKS - 1) for part in range(1, TICKS - 1)] if not dimension.whole else []


def _written(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else as_text(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
