"""Configurations of one search as recipes of another: mapped by name to the values that its space has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from search.ledger.trials import Trial, leaders
from search.space.dimension import Dimension, Number, dimension_text
from search.space.paths import SET_BY_SEARCH, defaults, flatten
from search.space.sections import STEPS
from search.space.space import Space
from search.space.spec import BACKBONE, SearchSpec
from search.space.values import Value
from trainable.config.validation import as_text

NOTHING = object()  # null may be a choice
# How images are shown; the other values of `data` say which ones.
SHOWN_AS = ("data.image_size", "data.early_size", "data.channels")
APART = 0.1  # of a range, on its scale: configurations nearer than this in all values count as one


@dataclass(frozen=True)
class Configuration:
    """A whole configuration by dotted path, and whose it was."""

    values: Mapping[str, Value]
    whose: str


def best_first(search: tuple[SearchSpec, Sequence[Trial]]) -> Iterator[Configuration]:
    """Give the whole configurations of a search, best first; a probe has no values of its own to carry over."""
    spec, trials = search
    searched = [trial for trial in trials if trial.is_searched]
    for trial in leaders(searched, metric=spec.search.metric, choose_by=spec.search.choose_by):
        values = defaults() | flatten(spec.config_of(trial))
        yield Configuration(values, f"trial {trial.number} of {spec.search.name}")


def recipe_of(
    values: Mapping[str, Value], *, spec: SearchSpec, to_nearest: bool = True
) -> tuple[dict[str, Value], list[str]]:
    """Express a configuration as a recipe of the space; also what it could not take over.

    A number outside its range becomes the nearest inside, or is left out too. What the configuration lacks is not said.
    """
    recipe: dict[str, Value] = {}
    lines = []
    space = spec.space
    for path, dimension in space.dimensions.items():
        if path not in values or path not in space.active(recipe):
            continue
        value = _step_name(values[path], path=path)
        taken: Any = _nearest(value, dimension) if to_nearest or dimension.contains(value) else NOTHING
        if taken is NOTHING:
            lines.append(
                f"{path}: {as_text(value)} is {'none of' if to_nearest else 'outside'} {dimension_text(dimension)}, drawn anew"
            )
            continue
        if taken != value:
            lines.append(f"{path}: {as_text(value)} is outside {dimension_text(dimension)}, taken as {as_text(taken)}")
        recipe[path] = taken
    return recipe, lines


def fixed_differently(values: Mapping[str, Value], *, spec: SearchSpec) -> list[str]:
    """The values that the space no longer searches and fixes to others, by name."""
    fixed = defaults() | spec.base
    return [
        f"{path}: {as_text(value)} before, fixed to {as_text(fixed[path])} now"
        for path, value in sorted(values.items())
        if path not in {*spec.space.dimensions, *SET_BY_SEARCH}
        and (path in SHOWN_AS or not path.startswith("data."))
        and fixed[path] != _step_name(value, path=path)
    ]


def _step_name(value: Value, *, path: str) -> Value:
    """The name of a pre-training where a value is the file that one left."""
    if path == "model.weights" and isinstance(value, str):
        return next((step for step in STEPS if value.endswith(f"/{step}/{BACKBONE}")), value)
    return value


def _nearest(value: Value, dimension: Dimension) -> Any:
    """The value itself or, for a number, the nearest that the dimension has; NOTHING where there is none."""
    if dimension.contains(value):
        return value
    if not isinstance(dimension, Number) or isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING
    inside = min(max(float(value), dimension.low), dimension.high)
    step = dimension.step or (1 if dimension.whole else None)
    if step is not None:
        inside = min(dimension.low + round((inside - dimension.low) / step) * step, dimension.high)
    return int(inside) if dimension.whole else inside


def is_near(recipe: Mapping[str, Value], other: Mapping[str, Value], *, space: Space) -> bool:
    """Whether two recipes count as one: they give the same paths, and values hardly apart."""
    return all(
        path in recipe and path in other and _distance(recipe[path], other[path], space.dimensions[path]) < APART
        for path in {*recipe, *other}
    )


def _distance(value: Value, other: Value, dimension: Dimension) -> float:
    """0 for equal values, 1 for both ends of a range or for different choices."""
    if not isinstance(dimension, Number):
        return float(value != other)
    values = [float(str(end)) for end in (value, other, dimension.low, dimension.high)]
    first, second, low, high = map(log, values) if dimension.log else values
    return abs(first - second) / (high - low)
