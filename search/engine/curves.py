"""A model of learning curves over configurations: what a trial will have reached at a later epoch.

A Gaussian process over configuration and the logarithm of the epoch, as in freeze-thaw Bayesian optimization (Swersky et al.
2014): a term of the configuration, one of it and the epoch, and one of each trial's own curve. Kernels are Matérn 5/2 with
a length for each path (Rasmussen and Williams 2006, eq. 4.17), fitted by the marginal likelihood (eq. 5.8, 5.9) times priors.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL, SLOPE = 1.0, 1.0  # variances of what all curves share: a level, and a line over the logarithm of the epoch
JITTER = 1e-6
MOST_STEPS = 15
# Of each logarithm that is fitted, after the lengths of the paths: the mean and the deviation of its prior.
NAMES = ("configuration", "interaction", "trial", "epochs", "trial_epochs", "noise")
PRIORS = np.log([0.5, 0.3, 0.1, 0.7, 0.7, 0.02]), np.array([1.0, 1.0, 1.0, 0.5, 0.5, 1.0])
LENGTH_DEVIATION = 1.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Places on curves: of each path N×columns, how far through training N (0 at epoch 1, 1 at the last), whose curve N."""

    features: list[Floats]
    progress: Floats
    trials: NDArray[np.int64]

    def joined(self, other: "Rows") -> "Rows":
        """These places, then the others."""
        return Rows(
            features=[np.concatenate(pair) for pair in zip(self.features, other.features, strict=True)],
            progress=np.concatenate([self.progress, other.progress]),
            trials=np.concatenate([self.trials, other.trials]),
        )


class _Pair:
    """What the kernel of two sets of places is made of."""

    def __init__(self, left: Rows, right: Rows) -> None:
        self.distances = np.stack(
            [
                ((first[:, None, :] - second[None, :, :]) ** 2).sum(-1)
                for first, second in zip(left.features, right.features, strict=True)
            ]
        )
        self.apart = np.abs(left.progress[:, None] - right.progress[None, :])
        self.line = LEVEL + SLOPE * left.progress[:, None] * right.progress[None, :]
        self.is_same = left.trials[:, None] == right.trials[None, :]

    def kernel(self, logs: Floats) -> Floats:
        """Covariances of the two sets, without noise."""
        lengths, values = np.exp(logs[: len(self.distances)]), np.exp(logs[len(self.distances) :])
        of_configuration, of_both, of_trial, over_epochs, over_own, _ = values
        alike = _matern(np.tensordot(lengths**-2, self.distances, axes=1))
        alike = alike * (of_configuration + of_both * _matern((self.apart / over_epochs) ** 2))
        own = self.is_same * of_trial * _matern((self.apart / over_own) ** 2)
        return cast(Floats, self.line + alike + own)

    def slopes(self, logs: Floats, *, weights: Floats) -> Floats:
        """For each logarithm but the noise's the sum over all pairs of ``weights`` times the kernel's derivative."""
        lengths, values = np.exp(logs[: len(self.distances)]), np.exp(logs[len(self.distances) :])
        of_configuration, of_both, of_trial, over_epochs, over_own, _ = values
        squares = np.tensordot(lengths**-2, self.distances, axes=1)
        alike, joint = _matern(squares), _matern((self.apart / over_epochs) ** 2)
        own = _matern((self.apart / over_own) ** 2) * self.is_same
        by_length = weights * (of_configuration + of_both * joint) * _matern_slope(squares)
        of_lengths = lengths**-2 * np.tensordot(self.distances, by_length, axes=([1, 2], [0, 1]))
        squared, own_squared = (self.apart / over_epochs) ** 2, (self.apart / over_own) ** 2
        of_values = [
            of_configuration * (weights * alike).sum(),
            of_both * (weights * alike * joint).sum(),
            of_trial * (weights * own).sum(),
            of_both * (weights * alike * _matern_slope(squared) * squared).sum(),
            of_trial * (weights * self.is_same * _matern_slope(own_squared) * own_squared).sum(),
        ]
        return np.concatenate([of_lengths, of_values])


@dataclass(frozen=True, kw_only=True)
class CurveModel:
    """The process given values at some places; ``logs`` are the fitted logarithms."""

    rows: Rows
    values: Floats
    logs: Floats

    @cached_property
    def _inverse(self) -> Floats:
        return cast(Floats, np.linalg.inv(_noisy(_Pair(self.rows, self.rows).kernel(self.logs), logs=self.logs)))

    def predict(self, rows: Rows) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the curves at these places, N each, without the noise of measuring."""
        across = _Pair(rows, self.rows).kernel(self.logs)
        values = np.exp(self.logs[-len(NAMES) :])
        own = LEVEL + SLOPE * rows.progress**2 + values[0] + values[1] + values[2]
        mean = across @ (self._inverse @ self.values)
        variance = own - ((across @ self._inverse) * across).sum(1)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def believing(self, rows: Rows) -> "CurveModel":
        """The model as if its own means had been measured at these places (Ginsbourger et al. 2010, kriging believer)."""
        if not len(rows.progress):
            return self
        mean, _ = self.predict(rows)
        return CurveModel(rows=self.rows.joined(rows), values=np.concatenate([self.values, mean]), logs=self.logs)


def fit_curves(rows: Rows, values: Floats) -> CurveModel:
    """Fit the model to values, N, of about mean 0 and deviation 1, at these places."""
    from scipy.optimize import minimize  # a third of a second to load, for this scheduler alone

    num_paths = len(rows.features)
    means = np.concatenate([np.full(num_paths, np.log(0.5 * np.sqrt(max(1, num_paths)))), PRIORS[0]])
    deviations = np.concatenate([np.full(num_paths, LENGTH_DEVIATION), PRIORS[1]])
    pair = _Pair(rows, rows)

    def cost(logs: Floats) -> tuple[float, Floats]:
        kernel = _noisy(pair.kernel(logs), logs=logs)
        lower = np.linalg.cholesky(kernel)
        inverse = np.linalg.inv(kernel)
        pulls = inverse @ values
        far = (logs - means) / deviations
        value = 0.5 * values @ pulls + np.log(np.diag(lower)).sum() + 0.5 * (far**2).sum()
        weights = 0.5 * (inverse - np.outer(pulls, pulls))
        noise = np.exp(logs[-1]) * np.trace(weights)
        return float(value), np.concatenate([pair.slopes(logs, weights=weights), [noise]]) + far / deviations

    fitted = minimize(
        cost,
        means,
        jac=True,
        method="L-BFGS-B",
        bounds=[(mean - 4 * spread, mean + 4 * spread) for mean, spread in zip(means, deviations, strict=True)],
        options={"maxiter": MOST_STEPS},
    )
    return CurveModel(rows=rows, values=values, logs=fitted.x)


def _noisy(kernel: Floats, *, logs: Floats) -> Floats:
    noise: Floats = (np.exp(logs[-1]) + JITTER) * np.eye(len(kernel))
    return kernel + noise


def _matern(squares: Floats) -> Floats:
    """Matérn 5/2 of squared distances in lengths."""
    far = np.sqrt(5.0 * squares)
    return (1.0 + far + 5.0 / 3.0 * squares) * np.exp(-far)


def _matern_slope(squares: Floats) -> Floats:
    """The derivative of Matérn 5/2 by the logarithm of the length, over the squared distance in lengths."""
    far = np.sqrt(5.0 * squares)
    return 5.0 / 3.0 * (1.0 + far) * np.exp(-far)
