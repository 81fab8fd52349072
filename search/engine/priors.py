"""What is known beforehand of a space: where its good points are likely to lie.

A number is likely to be near its prior: normally distributed on the scale of its range, cut off at the bounds. A choice is likely
to be its prior by the odds of its confidence. A path without a prior has any value evenly, and each path is independent of the
others. Confidences are a factor of two apart.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from search.engine.coordinates import Coordinates
from search.space.dimension import Choice, Confidence, Dimension, Number, Prior
from search.space.space import Space
from search.space.values import Value

Floats = NDArray[np.float64]

WIDTHS: dict[Confidence, float] = {
    "low": 0.4,
    "medium": 0.2,
    "high": 0.1,
}  # standard deviation, as a share of the range
ODDS: dict[Confidence, float] = {
    "low": 2.0,
    "medium": 4.0,
    "high": 8.0,
}  # of a choice's prior against each other member
LEAST_SHARE = 1e-12  # of a normal distribution, which has no value below which nothing is


class Priors:
    """The priors of a space over the rows of its coordinates."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._coordinates = Coordinates(space)
        self._dimensions = list(space.dimensions.values())

    def centre(self, chance: np.random.Generator) -> dict[str, Value]:
        """Give the likeliest point: the priors' own values; what has none is drawn evenly."""
        known = {path: prior for path, dimension in self._space.dimensions.items() if (prior := dimension.prior)}
        (wanted,) = self._coordinates.rows([{path: prior.value for path, prior in known.items()}])
        params = self._coordinates.params(np.where(np.isnan(wanted), chance.random(len(wanted)), wanted))
        return {path: _exactly(value, known.get(path)) for path, value in params.items()}

    def draw(self, chance: np.random.Generator, *, count: int) -> Floats:
        """Draw points as likely as they are, N×paths, NaN where a path is not active."""
        shares = chance.random((count, len(self._dimensions)))
        columns = [_positions(dimension, shares[:, index]) for index, dimension in enumerate(self._dimensions)]
        return self._coordinates.active(np.column_stack(columns))

    def sample(self, chance: np.random.Generator, *, count: int) -> Iterator[dict[str, Value]]:
        """The values of points drawn so, one by one."""
        return map(self._coordinates.params, self.draw(chance, count=count))

    def log_density(self, rows: Floats) -> Floats:
        """How much likelier each point is than if all were as likely, as a logarithm, N; an inactive path counts for nothing."""
        logs = np.zeros(len(rows))
        for index, dimension in enumerate(self._dimensions):
            if dimension.prior is not None:
                logs += np.nan_to_num(_log_density(dimension, dimension.prior, positions=rows[:, index]))
        return logs


def _exactly(value: Value, prior: Prior | None) -> Value:
    """A prior's own value where there is one: the position it lies at gives it but for the last digits."""
    if prior is None:
        return value
    return float(prior.value) if isinstance(value, float) and isinstance(prior.value, int | float) else prior.value


def _positions(dimension: Dimension, shares: Floats) -> Floats:
    """Where the values lie below which these shares of the probability are."""
    prior = dimension.prior
    if prior is None:
        return shares
    if isinstance(dimension, Choice):
        ends = np.cumsum(_probabilities(dimension, prior))
        members = np.minimum(np.searchsorted(ends, shares, side="right"), len(ends) - 1)
        return np.asarray((members + 0.5) / len(ends))
    normal = _normal(dimension, prior)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    below = np.clip(low + shares * (high - low), LEAST_SHARE, 1 - LEAST_SHARE)
    return np.clip([normal.inv_cdf(share) for share in below], 0.0, 1.0)


def _log_density(dimension: Dimension, prior: Prior, *, positions: Floats) -> Floats:
    """The logarithm of the density at positions in [0, 1], where an even one is 0; NaN stays so."""
    if isinstance(dimension, Choice):
        logs = np.log(np.array(_probabilities(dimension, prior)) * len(dimension.members))
        members = np.clip(np.nan_to_num(positions) * len(logs), 0, len(logs) - 1).astype(np.int64)
        return np.where(np.isnan(positions), np.nan, logs[members])
    normal = _normal(dimension, prior)
    within = normal.cdf(1.0) - normal.cdf(0.0)
    distances = (positions - normal.mean) / normal.stdev
    return np.asarray(-0.5 * distances**2 - math.log(normal.stdev * math.sqrt(2 * math.pi) * within))


def _probabilities(choice: Choice, prior: Prior) -> list[float]:
    """Of each member."""
    odds = [ODDS[prior.confidence] if Choice((member,)).contains(prior.value) else 1.0 for member in choice.members]
    return [weight / sum(odds) for weight in odds]


def _normal(number: Number, prior: Prior) -> NormalDist:
    """The distribution over positions before it is cut off."""
    assert isinstance(prior.value, int | float)
    low, high, centre = number.low, number.high, float(prior.value)
    if number.log:
        low, high, centre = math.log(low), math.log(high), math.log(centre)
    return NormalDist((centre - low) / (high - low), WIDTHS[prior.confidence])
