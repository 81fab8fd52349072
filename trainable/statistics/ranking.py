"""How selectors rank candidates."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import inf, isnan, sqrt

from trainable.metrics import UNLABELLED, Direction

# What tells a good network on a target without labels.
SELECTORS: dict[str, Direction] = {name: metric.direction for name, metric in UNLABELLED.items()}


def mean_ranks(values: Mapping[str, Sequence[float]], *, directions: Mapping[str, Direction]) -> list[float]:
    """Each candidate's rank, 1 the best, averaged over the selectors; candidates of one value share their mean rank.

    ``values`` has by selector one value a candidate, in the same order; an undefined one is the worst. Raises ValueError
    where selectors have different numbers of candidates, KeyError for one without a direction.
    """
    ranks = [_ranks(oriented) for oriented in _oriented(values, directions=directions).values()]
    return [sum(of_candidate) / len(ranks) for of_candidate in zip(*ranks, strict=True)]


def agreement(
    values: Mapping[str, Sequence[float]], *, directions: Mapping[str, Direction]
) -> dict[tuple[str, str], float]:
    """Kendall's τ_b of each two selectors, named in the order of ``values``: 1 where both rank the candidates the same way.

    -1 where they rank them in opposite order, 0 also where one of them tells no candidate from another. An undefined value
    is the worst. Takes time for the square of the number of candidates (Kendall 1945).
    """
    signs = {name: _signs(oriented) for name, oriented in _oriented(values, directions=directions).items()}
    return {(first, second): _correlation(signs[first], signs[second]) for first, second in combinations(signs, 2)}


def _oriented(values: Mapping[str, Sequence[float]], *, directions: Mapping[str, Direction]) -> dict[str, list[float]]:
    """More is better; no value is undefined."""
    factors = {name: 1 if directions[name] == "maximize" else -1 for name in values}
    return {name: [-inf if isnan(x) else factors[name] * x for x in of_name] for name, of_name in values.items()}


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def _signs(values: Sequence[float]) -> list[int]:
    """Of each two candidates: 1 where the first is better, -1 where the second is, 0 for equals."""
    return [(first > second) - (first < second) for first, second in combinations(values, 2)]


def _correlation(first: Sequence[int], second: Sequence[int]) -> float:
    together = sum(a * b for a, b in zip(first, second, strict=True))
    untied = sqrt(sum(map(abs, first)) * sum(map(abs, second)))
    return together / untied if untied else 0.0
