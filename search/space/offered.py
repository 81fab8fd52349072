"""Which values a path can have in a search."""

from search.space.dimension import Dimension, Number
from search.space.paths import defaults
from search.space.space import possible_values
from search.space.spec import SearchSpec
from search.space.values import Value


def offered(spec: SearchSpec, path: str, given: str = "") -> list[Value]:
    """The values a path can have, where ``given`` is searched if that is named; of a range its bounds.

    Where a searched path is inactive it has its fixed value, so that is among them.
    """
    fixed = (defaults() | spec.base)[path]
    dimensions = spec.space.dimensions
    dimension = dimensions.get(path)
    if dimension is None or _are_never_both_active(dimension, dimensions.get(given)):
        return [fixed]
    searched = list(_searched_values(spec, dimension, path=path, given=given))
    is_conditional = bool(dimension.when) and path not in (dimensions[given].when if given in dimensions else {})
    return [*searched, fixed] if is_conditional and path != given else searched


def _are_never_both_active(dimension: Dimension, other: Dimension | None) -> bool:
    """Whether two dimensions hang on values of one path that have none in common."""
    conditions = {} if other is None else other.when
    return any(
        set(values).isdisjoint(conditions[path]) for path, values in dimension.when.items() if path in conditions
    )


def _searched_values(spec: SearchSpec, dimension: Dimension, *, path: str, given: str) -> tuple[Value, ...]:
    if isinstance(dimension, Number) or given not in spec.space.dimensions:
        return dimension.extremes
    return possible_values(spec.space, path, given=given) or ()
