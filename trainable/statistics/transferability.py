"""How well features suit a task, from one look and without training."""

import numpy as np
from numpy.typing import NDArray

from trainable.statistics.arrays import Array, Labels

MMD_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the median squared distance, as DAN has them (Long et al. 2015)
MAX_ITERATIONS = 1000  # some ten are usual
SMALLEST = 1e-200  # divides without overflow


def logme(features: Array, labels: Labels) -> float:
    """Log evidence an image, nats, of Bayesian linear regressions from features N×F to each class, averaged; more is better.

    Per class that occurs y ∈ {0, 1}^N, y = F·w + noise, w ~ N(0, I/α), noise ~ N(0, I/β), maximised over α and β (LogME,
    You et al. 2021). Not bounded; comparable between features for the same labels only.
    """
    left, sizes, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    rank = int((sizes > sizes.max(initial=0.0) * max(features.shape) * np.finfo(np.float64).eps).sum())
    left, squares = left[:, :rank], np.square(sizes[:rank])
    evidence = [_log_evidence((labels == label).astype(np.float64), left, squares) for label in np.unique(labels)]
    return float(np.mean(evidence)) / len(labels)


def h_score(features: Array, labels: Labels) -> float:
    """Share of the features' spread that the class means make, summed over directions: 0 to K-1; more is better.

    (1-s)·tr(Σ⁻¹Σ_means) (Bao et al. 2019) with Ledoit-Wolf's shrinkage s of Σ, without which it only grows with the number
    of features (Ibrahim et al. 2022).
    """
    from sklearn.covariance import ledoit_wolf  # scikit-learn takes two seconds to load, and not every worker needs it

    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    means = _means_by_image(centred, labels)
    between = means.T @ means / len(labels)
    return float((1 - shrinkage) * np.trace(np.linalg.pinv(covariance, hermitian=True) @ between))


def class_distance_ratio(features: Array, labels: Labels) -> float:
    """How far apart the classes are for their width; more is better, and the scale of the features is no matter.

    The mean squared distance of the class means to the mean of all images, over that of the images to their class's mean;
    infinite where all images of a class are the same.
    """
    values = features.astype(np.float64)
    means = np.stack([values[labels == label].mean(axis=0) for label in np.unique(labels)])
    between = np.square(means - values.mean(axis=0)).sum(axis=1).mean()
    within = np.square(values - _means_by_image(values, labels)).sum(axis=1).mean()
    return float(between / within) if within > 0 else float("inf")


def mmd(x: Array, y: Array) -> float:
    """Squared maximum mean discrepancy of features N×F and M×F: 0 for identical samples, at most 2.

    The biased estimate (Gretton et al. 2012, eq. 5), which is never negative, for the mean of five RBF kernels
    exp(-d²/(width·median d²)) of ``MMD_WIDTHS``. Takes memory for (N+M)² numbers.
    """
    return float(_discrepancies(_kernel(x, y), _weights(len(x), len(y))[None])[0])


def mmd_permutation_test(x: Array, y: Array, *, permutations: int, seed: int) -> tuple[float, float]:
    """:func:`mmd`, with the probability of one as large where both samples are of one distribution.

    Of ``permutations`` random halvings of the pooled samples; the actual one counts as one of them, so that p is at least
    1/(permutations+1).
    """
    weights = _shuffled(_weights(len(x), len(y)), permutations=permutations, seed=seed)
    observed, *others = _discrepancies(_kernel(x, y), weights)
    as_large = sum(other >= observed - 1e-12 for other in others)  # equal but for the order of a sum
    return float(observed), float((1 + as_large) / (1 + permutations))


def mmd_permutations(x: Array, y: Array, *, permutations: int, seed: int) -> NDArray[np.float64]:
    """Unbiased estimates of the squared discrepancy: of features N×F and M×F, then of ``permutations`` random halvings.

    Eq. 3 of Gretton et al. 2012 with the kernels of :func:`mmd`. 0 on average where both samples are of one distribution,
    however few they are, and so now and then negative; N and M are 2 at least.
    """
    kernel = _kernel(x, y)
    num_x, num_y = len(x), len(y)
    of_x = _shuffled(np.repeat([1.0, 0.0], [num_x, num_y]), permutations=permutations, seed=seed)
    to_x = of_x @ kernel
    within_x, across = (to_x * of_x).sum(axis=1), (to_x * (1 - of_x)).sum(axis=1)
    within_y = kernel.sum() - within_x - 2 * across
    pairs_x, pairs_y = num_x * (num_x - 1), num_y * (num_y - 1)
    estimates = (within_x - num_x) / pairs_x + (within_y - num_y) / pairs_y - 2 * across / (num_x * num_y)
    return np.asarray(estimates)


def _log_evidence(target: NDArray[np.float64], left: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
    """The largest log evidence, for features of left singular vectors N×R and squared singular values R.

    It depends on λ = α/β alone once β is the best for it: y ~ N(0, (I + F·Fᵀ/λ)/β).
    """
    count, rank = left.shape
    along = np.square(left.T @ target)
    # What no weights explain; an exact fit of fewer directions than images would have infinite evidence.
    beyond = max(float(target @ target - along.sum()), np.finfo(np.float64).eps * count) if rank < count else 0.0
    ratio = _best_ratio(along, squares, beyond=beyond, spare=count - rank) if rank else 1.0
    unexplained = beyond + (along * ratio / (squares + ratio)).sum()
    return float(-count * (np.log(2 * np.pi * unexplained / count) + 1) - np.log1p(squares / ratio).sum()) / 2


def _best_ratio(along: NDArray[np.float64], squares: NDArray[np.float64], *, beyond: float, spare: int) -> float:
    """λ at the fixed point of You et al. 2021, α = γ/‖m‖² and β = (N-γ)/‖F·m-y‖² with γ the effective number of weights.

    Where there is none, because the features say nothing or all, it is the edge of what the singular values resolve.
    """
    ratio = float(squares.mean())
    for _ in range(MAX_ITERATIONS):
        shrunk = squares + ratio
        alpha = (squares / shrunk).sum() / max((squares * along / shrunk**2).sum(), SMALLEST)
        beta = (spare + (ratio / shrunk).sum()) / (beyond + (ratio**2 * along / shrunk**2).sum())
        previous, ratio = ratio, float(np.clip(alpha / beta, squares.min() * 1e-12, squares.max() * 1e12))
        if abs(ratio - previous) <= 1e-6 * previous:
            break
    return ratio


def _means_by_image(values: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """For each image the mean N×F of its class."""
    present, position = np.unique(labels, return_inverse=True)
    means = np.stack([values[labels == label].mean(axis=0) for label in present])
    return np.asarray(means[position])


def _kernel(x: Array, y: Array) -> NDArray[np.float64]:
    """The kernel's values (N+M)×(N+M) between all images of both samples."""
    from sklearn.metrics import pairwise_distances

    both = np.concatenate([x, y]).astype(np.float64)
    squared = np.square(pairwise_distances(both))
    squared[squared < 1e-12 * np.square(both).sum(axis=1).max()] = 0.0  # what rounding leaves between equal rows
    median = np.median(squared[squared > 0]) if squared.any() else 1.0
    return np.asarray(np.mean([np.exp(-squared / (width * median)) for width in MMD_WIDTHS], axis=0))


def _weights(num_x: int, num_y: int) -> NDArray[np.float64]:
    """With these, the sum over the kernel's rows and columns is the squared discrepancy."""
    return np.repeat([1 / num_x, -1 / num_y], [num_x, num_y])


def _shuffled(row: NDArray[np.float64], *, permutations: int, seed: int) -> NDArray[np.float64]:
    """The row as it is, below it ``permutations`` shuffles of it."""
    generator = np.random.default_rng(seed)
    return np.concatenate([row[None], generator.permuted(np.tile(row, (permutations, 1)), axis=1)])


def _discrepancies(kernel: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """wᵀ·K·w for each row w of P×(N+M) weights; rounding makes none negative."""
    return np.asarray(np.maximum(((weights @ kernel) * weights).sum(axis=1), 0.0))
