"""The points of a space as numbers that a model can compare, and back."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from search.space.dimension import Choice, Dimension, Number
from search.space.space import Space
from search.space.values import Value

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Floats = NDArray[np.float64]

MOVED_SHARE = 0.3  # of the paths of a point that is moved, one at least
STEP = 0.15  # standard deviation of how far a number moves, as a share of its range


class Coordinates:
    """A point is a row with a number in [0, 1] for each path; one that is not active has NaN there."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._dimensions = list(space.dimensions.values())
        self._index = {path: index for index, path in enumerate(space.dimensions)}

    def rows(self, points: Sequence[Mapping[str, Value]]) -> Floats:
        """Give the rows of points, N×paths; a path that a point does not have is NaN."""
        rows = np.full((len(points), len(self._dimensions)), np.nan)
        for row, params in zip(rows, points, strict=True):
            for path, value in params.items():
                if path in self._index:
                    row[self._index[path]] = _position(self.space.dimensions[path], value)
        return rows

    def params(self, row: Floats) -> dict[str, Value]:
        """The values of a row, of its active paths alone."""
        drawn = _Drawn({path: float(row[index]) for path, index in self._index.items()})
        return self.space.suggest(cast("BaseTrial", drawn))

    def draw(self, chance: np.random.Generator, *, count: int) -> Floats:
        """Random points, N×paths, as the ranges are written: logarithmic ones by their logarithm."""
        return self.active(chance.random((count, len(self._dimensions))))

    def near(self, rows: Floats, *, chance: np.random.Generator) -> Floats:
        """Move each of these points in some of its paths: numbers by a step, choices to any member."""
        fresh = chance.random(rows.shape)
        moved = chance.random(rows.shape) < MOVED_SHARE
        moved[np.arange(len(rows)), chance.integers(rows.shape[1], size=len(rows))] = True
        stepped = np.clip(rows + STEP * chance.standard_normal(rows.shape), 0.0, 1.0)
        is_ordered = np.array([_is_ordered(dimension) for dimension in self._dimensions])
        values = np.where(np.isnan(rows), fresh, np.where(moved, np.where(is_ordered, stepped, fresh), rows))
        return self.active(values)

    def features(self, rows: Floats) -> list[Floats]:
        """For each path N×columns, between which distances are at most 1: one column for what has an order.

        Members without an order lie at equal distances of 1. An inactive path lies in the middle.
        """
        return [_features(dimension, rows[:, index]) for index, dimension in enumerate(self._dimensions)]

    def active(self, rows: Floats) -> Floats:
        """The rows, NaN where the conditions of a path do not hold."""
        rows = np.array(rows)
        for index, dimension in enumerate(self._dimensions):
            for owner, values in dimension.when.items():
                place = self._index[owner]
                rows[~_has_any(self._dimensions[place], rows[:, place], values=values), index] = np.nan
        return rows


class _Drawn:
    """Stands for a trial of Optuna that a space asks for values; they lie at given positions."""

    def __init__(self, positions: Mapping[str, float]) -> None:
        self._positions = positions

    def suggest_categorical(self, path: str, choices: Sequence[Any]) -> Any:
        """The member at the position."""
        return choices[int(_indices(np.array([self._positions[path]]), count=len(choices))[0])]

    def suggest_int(self, path: str, low: int, high: int, *, step: int, log: bool) -> int:
        """The whole number at the position."""
        dimension = Number(low=low, high=high, whole=True, log=log, step=step if step > 1 else None)
        return int(_numbers(dimension, np.array([self._positions[path]]))[0])

    def suggest_float(self, path: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """The number at the position."""
        dimension = Number(low=low, high=high, log=log, step=step)
        return float(_numbers(dimension, np.array([self._positions[path]]))[0])


def _position(dimension: Dimension, value: Value) -> float:
    """Where a value lies between 0 and 1; members of a choice in the middle of equal parts."""
    if isinstance(dimension, Choice):
        members = [dimension.encode(member) for member in dimension.members]
        return (members.index(dimension.encode(value)) + 0.5) / len(members)
    assert isinstance(value, int | float)
    low, high, number = dimension.low, dimension.high, float(value)
    if dimension.log:
        low, high, number = np.log(low), np.log(high), np.log(number)
    return float(np.clip((number - low) / (high - low), 0.0, 1.0))


def _indices(positions: Floats, *, count: int) -> NDArray[np.int64]:
    return np.clip(np.nan_to_num(positions) * count, 0, count - 1).astype(np.int64)


def _numbers(dimension: Number, positions: Floats) -> Floats:
    """The numbers at these positions, on the dimension's grid."""
    if dimension.log:
        numbers = np.exp(np.log(dimension.low) + positions * (np.log(dimension.high) - np.log(dimension.low)))
    else:
        numbers = dimension.low + positions * (dimension.high - dimension.low)
    step = dimension.step or (1.0 if dimension.whole else None)
    if step is not None:
        numbers = dimension.low + np.round((numbers - dimension.low) / step) * step
    return cast(Floats, np.clip(numbers, dimension.low, dimension.high))


def _is_ordered(dimension: Dimension) -> bool:
    """Whether values have an order: numbers, and members that are all numbers."""
    return isinstance(dimension, Number) or all(
        isinstance(member, int | float) and not isinstance(member, bool) for member in dimension.members
    )


def _features(dimension: Dimension, positions: Floats) -> Floats:
    is_missing = np.isnan(positions)
    if isinstance(dimension, Number):
        numbers = _numbers(dimension, np.where(is_missing, 0.5, positions))
        if dimension.log:
            numbers = np.log(numbers / dimension.low) / np.log(dimension.high / dimension.low)
        else:
            numbers = (numbers - dimension.low) / (dimension.high - dimension.low)
        return np.where(is_missing, 0.5, numbers)[:, None]
    count = len(dimension.members)
    indices = _indices(positions, count=count)
    if _is_ordered(dimension):
        order = np.argsort(np.argsort(np.array(dimension.members, dtype=float)))
        return np.where(is_missing, 0.5, order[indices] / max(1, count - 1))[:, None]
    columns = np.eye(count)[indices] / np.sqrt(2.0)
    columns[is_missing] = 0.0
    return cast(Floats, columns)


def _has_any(dimension: Dimension, positions: Floats, *, values: Sequence[Value]) -> NDArray[np.bool_]:
    """Whether the value at each position is one of these; never where the path is not active."""
    if isinstance(dimension, Choice):
        wanted = [index for index, member in enumerate(dimension.members) if member in values]
        has = np.isin(_indices(positions, count=len(dimension.members)), wanted)
    else:
        has = np.isin(_numbers(dimension, np.nan_to_num(positions)), np.array(values, dtype=float))
    return has & ~np.isnan(positions)
