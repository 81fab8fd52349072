"""A cosine classifier whose weights are the classes' mean features, at once."""

import numpy as np
from scipy.optimize import minimize_scalar

from trainable.statistics.arrays import Array, Double, Labels
from trainable.statistics.calibration import cross_entropy

LEAST_NORM = 1e-6  # of features, below which their direction says nothing
SMALLEST_SCALE, LARGEST_SCALE = 1.0, 100.0


def prototypes(features: Array, labels: Labels, *, num_classes: int) -> tuple[Double, float]:
    """Weights K×F of length 1 and the scale of a cosine classifier of features N×F with labels N.

    A class's weights are the direction of the mean of its features, each of length 1 (the nearest class mean of Mensink et al.
    2013 and of Snell et al. 2017, as weights: Qi et al. 2018); those of a class without images point away from the mean of all.
    The scale is that of least cross-entropy, classes weighing the same, of images each of which is left out of its class's mean.
    """
    directions = _directions(features.astype(np.float64))
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, labels, directions)
    absent = np.bincount(labels, minlength=num_classes) == 0
    sums[absent] = -sums.sum(axis=0)
    weights = _directions(sums)
    cosines = directions @ weights.T
    left_out = _directions(sums[labels] - directions)
    cosines[np.arange(len(labels)), labels] = (directions * left_out).sum(axis=1)

    def loss(log_scale: float) -> float:
        return cross_entropy(np.exp(log_scale) * cosines, labels=labels, balanced=True)

    bounds = (np.log(SMALLEST_SCALE), np.log(LARGEST_SCALE))
    return weights, float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _directions(vectors: Double) -> Double:
    lengths: Double = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, LEAST_NORM)
