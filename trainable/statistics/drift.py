"""Whether new images are of another distribution than old ones: by how much, how surely."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.seeds import derive
from trainable.statistics.arrays import Array
from trainable.statistics.transferability import mmd_permutations

ALL = "all"
FEWEST = 20  # images of a class on each side: of fewer, single ones decide

Sides = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Features of new images against those of old ones.

    ``effect`` is their distance, the maximum mean discrepancy: 0 for one distribution, 1.41 at most. ``p`` is the
    probability of one as large by chance. It falls as images get more, for any effect, so that a decision asks for both.
    ``num_old`` and ``num_new`` images were compared.
    """

    effect: float
    p: float
    num_old: int
    num_new: int

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Prior:
    """Shares of the classes among new images against those among old ones.

    ``effect`` is Cramér's V, 0 for the same shares, 1 at most; ``p`` the probability of one as large by chance.
    """

    effect: float
    p: float

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


SAME = Prior(effect=0.0, p=1.0)  # nothing is known to differ


def feature_drift(
    old: Array,
    new: Array,
    *,
    old_labels: Sequence[str],
    new_labels: Sequence[str],
    seed: int,
    permutations: int = 200,
    most: int = 1000,
) -> dict[str, Drift]:
    """How features N×F and M×F differ, of ``all`` images and of each class that has ``FEWEST`` on both sides.

    At most ``most`` images a side are drawn with the seed, since time and memory grow with their square. No image of
    either side may be one that the network was trained on: once it has learnt these by heart they differ from others of
    the same distribution by 0.16.

    The effect is the root of the unbiased estimate, and 0 where that is negative; the biased one grows as images get fewer
    (Gretton et al. 2012). The p of a class is corrected for the number of classes by the largest of all of them in each
    permutation (Westfall and Young 1993): after Bonferroni or Holm none of ten classes could fall below 0.01 with fewer
    than a thousand permutations. A class that is called ``all`` is not told.
    """
    of_old, of_new = np.asarray(old_labels), np.asarray(new_labels)
    classes = {name: (old[of_old == name], new[of_new == name]) for name in _large_enough(old_labels, new_labels)}
    whole, by_class = (
        _drifts(
            {name: _drawn(sides, most=most, seed=derive(seed, "drawn", name)) for name, sides in family.items()},
            permutations=permutations,
            seed=seed,
        )
        for family in ({ALL: (old, new)}, classes)
    )
    return by_class | whole


def prior_drift(
    old_counts: Mapping[str, int], new_counts: Mapping[str, int], *, seed: int, permutations: int = 1000
) -> Prior:
    """How the shares of the classes differ; of fewer than ``FEWEST`` images on a side nothing is known: effect 0, p 1.

    Of classes that the old images have; new ones are told apart. ``p`` is of the chi-squared statistic of homogeneity, by
    drawing the new images out of all again and again, since its usual distribution does not hold for rare classes. ``effect``
    is Cramér's V as it is of equally many images on both sides, corrected for what chance alone makes of it (Bergsma 2013):
    it depends on the shares, not on how many images there are.
    """
    names = [name for name in old_counts if old_counts[name] > 0]
    old, new = (np.array([side.get(name, 0) for name in names]) for side in (old_counts, new_counts))
    if len(names) < 2 or min(old.sum(), new.sum()) < FEWEST:
        return SAME
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(old + new, new.sum(), size=permutations)
    statistic, *by_chance = _chi_squared(np.concatenate([new[None], drawn]), pooled=old + new)
    p = (1 + sum(value >= statistic - 1e-9 for value in by_chance)) / (1 + permutations)
    totals = np.array([old.sum(), new.sum()])
    old_shares, new_shares = old / totals[0], new / totals[1]
    squared = (np.square(old_shares - new_shares) / (old_shares + new_shares)).sum() / 2
    expected = (len(names) - 1) * (1 / totals).sum() / 4
    return Prior(effect=float(np.sqrt(max(squared - expected, 0.0))), p=float(p))


def _chi_squared(drawn: NDArray[np.int64], *, pooled: NDArray[np.int64]) -> NDArray[np.float64]:
    """The statistic of each row of R×K counts drawn out of the pooled K."""
    expected = pooled * (drawn[0].sum() / pooled.sum())
    rest = pooled - expected
    return np.asarray((np.square(drawn - expected) * (1 / expected + 1 / rest)).sum(axis=1))


def drifted(
    drifts: Mapping[str, Drift], prior: Prior, *, p: float, effect: float, whole: str = "all images"
) -> list[str]:
    """What has drifted, a line each: an effect of at least ``effect`` that chance makes with at most ``p``; empty for nothing."""
    reasons = [
        f"{whole if name == ALL else f'images of class {name!r}'}: features differ by {drift.effect:.2f} "
        f"(p {drift.p:.2g}; {drift.num_new} new images against {drift.num_old})"
        for name, drift in drifts.items()
        if drift.effect >= effect and drift.p <= p
    ]
    if prior.effect >= effect and prior.p <= p:
        reasons.append(f"shares of the classes differ by {prior.effect:.2f} (p {prior.p:.2g})")
    return reasons


def _large_enough(old_labels: Sequence[str], new_labels: Sequence[str]) -> list[str]:
    old, new = Counter(old_labels), Counter(new_labels)
    return sorted(name for name in old if min(old[name], new[name]) >= FEWEST)


def _drawn(sides: Sides, *, most: int, seed: int) -> Sides:
    """At most ``most`` images of each side, in their order."""
    generator = np.random.default_rng(seed)
    old, new = (side[np.sort(generator.permutation(len(side))[:most])] for side in sides)
    return old, new


def _drifts(samples: Mapping[str, Sides], *, permutations: int, seed: int) -> dict[str, Drift]:
    """The drift of each of some samples that share no image, p corrected for how many there are."""
    squared = {
        name: mmd_permutations(*sides, permutations=permutations, seed=derive(seed, "permuted", name))
        for name, sides in samples.items()
    }
    scaled = {name: _standardised(row) for name, row in squared.items()}
    largest = [max(of_one) for of_one in zip(*(row[1:] for row in scaled.values()), strict=True)]
    return {
        name: Drift(
            effect=float(np.sqrt(max(squared[name][0], 0.0))),
            p=float((1 + (np.array(largest) >= scaled[name][0]).sum()) / (1 + permutations)),
            num_old=len(old),
            num_new=len(new),
        )
        for name, (old, new) in samples.items()
    }


def _standardised(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Comparable with those of other classes; all entries are zero where all features are the same."""
    return np.asarray((row - row.mean()) / (row.std() or 1.0))
