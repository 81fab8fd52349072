"""How much each class's probability should count, where the metric is not best served by the likeliest class."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from trainable.statistics.arrays import Double, Labels

SHARPNESS = 4.0  # of the softmax that stands for the hard decision while weights are fitted
LEAST = 1e-12  # images of a class, in place of none
DEVIATION = 1.0  # of the logarithm of a weight, as believed before images are seen


class _Measured(NamedTuple):
    """A metric of the shares N×K by which images belong to each class, and its gradient by these, N×K."""

    value: float
    gradient: Double


def _accuracy(shares: Double, truth: Double) -> _Measured:
    return _Measured(float((shares * truth).sum() / len(truth)), truth / len(truth))


def _balanced_accuracy(shares: Double, truth: Double) -> _Measured:
    count = truth.sum(axis=0)
    gradient = truth / (np.maximum(count, 1) * (count > 0).sum())
    return _Measured(float((shares * gradient).sum()), gradient)


def _macro_f1(shares: Double, truth: Double) -> _Measured:
    hits, both = (shares * truth).sum(axis=0), np.maximum(truth.sum(axis=0) + shares.sum(axis=0), LEAST)
    gradient = 2 * (truth / both - hits / both**2) / truth.shape[1]
    return _Measured(float((2 * hits / both).mean()), gradient)


METRICS: dict[str, Callable[[Double, Double], _Measured]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
}


def fit_class_weights(logits: Double, *, labels: Labels, metric: str, free: NDArray[np.bool_] | None = None) -> Double:
    """The logarithms K of weights that raise a metric of :data:`METRICS` most when classes' probabilities are multiplied by them.

    ``logits`` N×K, ``labels`` N. The metric is taken of a sharpened softmax in place of the likeliest class, so that it has a
    gradient; a normal prior around equal weights keeps those small of which few images tell. A class without an image
    keeps its weight of 1, and, where ``free`` K is given, one that is not.
    """
    truth = np.eye(logits.shape[1])[labels]

    def loss(weights: Double) -> tuple[float, Double]:
        shares = softmax(SHARPNESS * (logits + weights), axis=1)
        value, by_shares = METRICS[metric](shares, truth)
        by_logits = SHARPNESS * shares * (by_shares - (by_shares * shares).sum(axis=1, keepdims=True))
        believed = weights / (DEVIATION**2 * len(labels))
        return float(weights @ believed / 2 - value), believed - by_logits.sum(axis=0)

    moved: NDArray[np.bool_] = np.bincount(labels, minlength=logits.shape[1]) > 0
    if free is not None:
        moved = moved & free
    bounds = [(None, None) if may_move else (0.0, 0.0) for may_move in moved]
    fitted: Double = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted
