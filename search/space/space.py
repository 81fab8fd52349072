"""What varies: the searched values of a trial by dotted path, drawn one after the other."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from search.space.dimension import Choice, Conditions, Dimension, Number, dimension_text
from search.space.values import Value
from trainable.config.renamed import first_name
from trainable.config.validation import as_text, did_you_mean
from trainable.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Space:
    """Dimensions by path, in an order that depends on paths alone and has every condition before what it governs."""

    dimensions: Mapping[str, Dimension]

    def suggest(self, trial: "BaseTrial") -> dict[str, Value]:
        """The trial's values, asked of Optuna one by one; only the active ones."""
        params: dict[str, Value] = {}
        for path, dimension in self.dimensions.items():
            if _hold(dimension.when, params):
                params[path] = dimension.suggest(trial, path=path)
        return params

    @property
    def has_priors(self) -> bool:
        """Whether anything is known beforehand of any path."""
        return any(dimension.prior is not None for dimension in self.dimensions.values())

    def active(self, params: Mapping[str, Value]) -> tuple[str, ...]:
        """The paths whose conditions hold; what ``params`` gives for an inactive path counts for nothing."""
        values: dict[str, Value] = {}
        active = []
        for path, dimension in self.dimensions.items():
            if _hold(dimension.when, values):
                active.append(path)
                values |= {path: params[path]} if path in params else {}
        return tuple(active)

    def contains(self, params: Mapping[str, Value]) -> bool:
        """Whether the values are a whole point of the space: exactly the active paths, each in its range."""
        return not self.problems(params) and set(params) == set(self.active(params))

    def problems(self, params: Mapping[str, Value]) -> list[str]:
        """What is wrong with values that may leave some paths to the sampler, one line each."""
        lines = []
        active = self.active(params)
        for path, value in params.items():
            dimension = self.dimensions.get(path)
            if dimension is None:
                lines.append(f"{path}: is not varied{did_you_mean(path, self.dimensions)}")
            elif not dimension.contains(value):
                lines.append(f"{path}: {as_text(value)} is outside {dimension_text(dimension)}")
            elif path not in active:
                lines.append(f"{path}: is only searched when {_said_conditions(dimension.when)}; give that too")
        return lines

    def encoded(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """The values as Optuna stores them, for ``Study.enqueue_trial``."""
        return {path: self.dimensions[path].encode(value) for path, value in params.items()}

    def decoded(self, stored: Mapping[str, Any]) -> dict[str, Value]:
        """The values that Optuna stored, from ``FrozenTrial.params``."""
        return {path: self.dimensions[path].decode(value) for path, value in stored.items()}

    def plain(self) -> dict[str, Any]:
        """The space as it is written in YAML."""
        return {path: dimension.plain() for path, dimension in self.dimensions.items()}


def make_space(dimensions: Mapping[str, Dimension]) -> Space:
    """The dimensions in order. Raises UserError for conditions that go in a circle or can never hold."""
    ordered: dict[str, Dimension] = {}
    # By the names that paths had at first: the order decides what a seed draws, and searches begun then are gone on with.
    rest = dict(sorted(dimensions.items(), key=lambda item: first_name(item[0])))
    while rest:
        path = next((path for path, dimension in rest.items() if not _waits(dimension, rest)), None)
        if path is None:
            raise UserError(_said_circle(rest))
        ordered[path] = rest.pop(path)
    space = Space(ordered)
    for path in ordered:
        _check_reachable(space, path)
    return space


def possible_values(space: Space, path: str, *, given: str) -> tuple[Value, ...] | None:
    """The values a choice may have where the path ``given`` is searched; None for a range."""
    dimension = space.dimensions[path]
    if not isinstance(dimension, Choice):
        return None
    required = [values for owner, values in _all_conditions(space, given) if owner == path]
    return tuple(member for member in dimension.members if all(member in values for values in required))


def corners(space: Space, *, of: int, among: Collection[str] | None = None) -> Iterator[dict[str, Value]]:
    """Every combination of the extreme values of ``of`` paths, of all or ``among`` some, with what their conditions ask for.

    Impossible ones are left out.
    """
    for paths in combinations(space.dimensions if among is None else among, of):
        for values in product(*(space.dimensions[path].extremes for path in paths)):
            point = dict(zip(paths, values, strict=True))
            if _meet_conditions(space, point):
                yield point


def _meet_conditions(space: Space, point: dict[str, Value]) -> bool:
    """Add to the point what its paths' conditions ask for; False where that contradicts what it has."""
    for path in list(point):
        for owner, values in _all_conditions(space, path):
            if owner in point and point[owner] not in values:
                return False
            point.setdefault(owner, values[0])
    return set(point) <= set(space.active(point))


def _hold(when: Conditions, params: Mapping[str, Value]) -> bool:
    return all(path in params and params[path] in values for path, values in when.items())


def _waits(dimension: Dimension, rest: Mapping[str, Dimension]) -> bool:
    return any(path in rest for path in dimension.when)


def _said_conditions(when: Conditions) -> str:
    return " and ".join(f"{path} is {' or '.join(as_text(value) for value in values)}" for path, values in when.items())


def _said_circle(rest: Mapping[str, Dimension]) -> str:
    """The circle among dimensions that all wait for one another."""
    walk = [next(iter(rest))]
    while len(set(walk)) == len(walk):
        walk.append(next(path for path in rest[walk[-1]].when if path in rest))
    circle = walk[walk.index(walk[-1]) :]
    return f"vary.{circle[0]}.when: depends on itself ({' -> '.join(circle)})"


def _check_reachable(space: Space, path: str) -> None:
    for owner, values in space.dimensions[path].when.items():
        dimension = space.dimensions[owner]
        where = f"vary.{path}.when.{owner}"
        if isinstance(dimension, Number) and not dimension.whole:
            raise UserError(f"{where}: {owner} is a continuous range; a condition needs a choice or int")
        for value in values:
            if not dimension.contains(value):
                raise UserError(f"{where}: {as_text(value)} is outside {dimension_text(dimension)}")
    conditions = _all_conditions(space, path)
    for owner in {owner for owner, _ in conditions}:
        together = [values for other, values in conditions if other == owner]
        if not any(all(value in values for values in together) for value in together[0]):
            needs = " and ".join(" or ".join(as_text(value) for value in values) for values in together)
            raise UserError(f"vary.{path}.when: can never hold, {owner} would have to be {needs} at once")


def _all_conditions(space: Space, path: str) -> list[tuple[str, tuple[Value, ...]]]:
    """The path's conditions with those of the paths it depends on."""
    conditions = space.dimensions[path].when
    inherited = [pair for owner in conditions for pair in _all_conditions(space, owner)]
    return [*conditions.items(), *inherited]
