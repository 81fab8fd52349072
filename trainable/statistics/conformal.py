"""When a classifier says that it is unsure: sets of classes that hold the right one as often as was asked for.

Split conformal prediction with the probability of a class as its score (Sadinle, Lei and Wasserman 2019): for images like those
that the threshold was fitted to, and not used otherwise, sets hold the right class with the probability asked for.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.statistics.arrays import Double, Labels
from trainable.statistics.comparison import Interval, wilson

CONFIDENCE = 0.95  # of the intervals of shares


@dataclass(frozen=True, kw_only=True)
class Unsure:
    """A class is plausible from ``least_probability`` on, fitted to ``num_images`` for the ``coverage`` asked for."""

    coverage: float
    least_probability: float
    num_images: int

    def plausible(self, probabilities: Double) -> NDArray[np.bool_]:
        """N×K, which classes are plausible."""
        return probabilities >= self.least_probability

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What sets are worth on N labelled images.

    ``coverage`` is the share of images whose set holds the right class, ``sure`` that of images with one plausible class,
    ``accuracy_when_sure`` among these; ``mean_size`` the number of plausible classes on average.
    """

    coverage: Interval
    sure: Interval
    accuracy_when_sure: Interval
    mean_size: float


def fit_unsure(probabilities: Double, *, labels: Labels, coverage: float) -> Unsure:
    """The largest threshold for probabilities N×K that reaches the ``coverage``, counting one image more than there are.

    Where there are too few images for it, every class is plausible.
    """
    of_right = np.sort(probabilities[np.arange(len(labels)), labels])
    left_out = len(labels) - math.ceil((len(labels) + 1) * coverage)  # at most, of these images
    least = float(of_right[left_out]) if left_out >= 0 else 0.0
    return Unsure(coverage=coverage, least_probability=least, num_images=len(labels))


def covered(unsure: Unsure, *, probabilities: Double, labels: Labels) -> Covered:
    """How often sets hold the right class of these images, and how often there is only one."""
    plausible = unsure.plausible(probabilities)
    sizes, held = plausible.sum(axis=1), plausible[np.arange(len(labels)), labels]
    sure = sizes == 1
    return Covered(
        coverage=wilson(int(held.sum()), of=len(labels), confidence=CONFIDENCE),
        sure=wilson(int(sure.sum()), of=len(labels), confidence=CONFIDENCE),
        accuracy_when_sure=wilson(int((held & sure).sum()), of=int(sure.sum()), confidence=CONFIDENCE),
        mean_size=float(sizes.mean()),
    )
