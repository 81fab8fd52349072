"""What brings a trained classifier's logits into line with images that it was not trained on.

Two numbers do it, so that a few hundred images settle them; whether they help is asked of images that they were not fitted to
(:func:`held_out`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from trainable.statistics.arrays import Double, Labels

HOTTEST, STEEPEST = 20.0, 3.0  # temperature, whose least is one in this; tau
# What is believed of a network before its images are seen: the deviations of the logarithm of its temperature, and of tau.
TEMPERATURE_DEVIATION, TAU_DEVIATION = 0.3, 1.0
NUM_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """Logits less ``tau`` times the logarithm of each class's share in training, over ``temperature``."""

    tau: float = 0.0
    temperature: float = 1.0

    def apply(self, logits: Double, *, log_shares: Double) -> Double:
        """Logits N×K as they should be; ``log_shares`` K."""
        return (logits - self.tau * log_shares) / self.temperature


def cross_entropy(logits: Double, *, labels: Labels, balanced: bool) -> float:
    """Mean over images N, or, ``balanced``, over classes, of the cross-entropy of logits N×K, nats."""
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    if not balanced:
        return float(losses.mean())
    return float(np.mean([losses[labels == label].mean() for label in np.unique(labels)]))


def fit_calibration(
    logits: Double, *, labels: Labels, log_shares: Double, balanced: bool, fits_tau: bool = True
) -> Calibration:
    """The calibration of least cross-entropy: temperature scaling (Guo et al. 2017, eq. 9), and logit adjustment's τ (Menon et
    al. 2021, eq. 9) fitted in place of chosen, or without ``fits_tau`` left at 0.

    Normal priors around a network that needs none keep few images, or such as are all right, from making it as sure as can be.
    """

    def loss(numbers: Double) -> float:
        tau, log_temperature = (float(number) for number in numbers)
        found = Calibration(tau=tau, temperature=float(np.exp(log_temperature)))
        unlikely = (log_temperature / TEMPERATURE_DEVIATION) ** 2 + (tau / TAU_DEVIATION) ** 2
        of_images = cross_entropy(found.apply(logits, log_shares=log_shares), labels=labels, balanced=balanced)
        return of_images + unlikely / (2 * len(labels))

    bounds = [(-STEEPEST, STEEPEST) if fits_tau else (0.0, 0.0), (-np.log(HOTTEST), np.log(HOTTEST))]
    tau, log_temperature = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds).x
    return Calibration(tau=float(tau), temperature=float(np.exp(log_temperature)))


def held_out(logits: Double, *, labels: Labels, fit: Callable[[Double, Labels], Callable[[Double], Double]]) -> Double:
    """Logits N×K of which each was changed by a rule that was fitted to others, by five folds."""
    changed = logits.astype(np.float64)
    for inside in folds(labels):
        changed[inside] = fit(logits[~inside], labels[~inside])(logits[inside])
    return changed


def overconfidence(probabilities: Double, *, of_source: Double, labels: Labels) -> float:
    """How much surer a classifier is of images N×K of another domain than it is right on those M×K of its own, with labels M.

    The mean probability of the likeliest class less the accuracy. Where the domain is no easier than the classifier's own,
    what is above 0 cannot be right.
    """
    accuracy = np.mean(of_source.argmax(axis=1) == labels)
    return float(probabilities.max(axis=1).mean() - accuracy)


def choose_held_out(candidates: Sequence[Double], *, labels: Labels, balanced: bool) -> tuple[int, Double]:
    """Which of several logits N×K has the least cross-entropy, and logits of which each image's were chosen by others."""

    def best(rows: NDArray[np.bool_]) -> int:
        losses = [cross_entropy(logits[rows], labels=labels[rows], balanced=balanced) for logits in candidates]
        return int(np.argmin(losses))

    chosen = np.zeros_like(candidates[0])
    for inside in folds(labels):
        chosen[inside] = candidates[best(~inside)][inside]
    return best(np.ones(len(labels), dtype=bool)), chosen


def folds(labels: Labels) -> Iterator[NDArray[np.bool_]]:
    """Which images are in each of five folds, the same for the same labels: images of a class go to them in turn."""
    fold = np.zeros(len(labels), dtype=int)
    start = 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        fold[rows] = (start + np.arange(len(rows))) % NUM_FOLDS
        start += len(rows)
    yield from (fold == number for number in np.unique(fold))
