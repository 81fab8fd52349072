"""What more images would be worth: a power law through a classifier's accuracy by the number of its training images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.statistics.arrays import Labels

RESAMPLES = 200
CONFIDENCE = 0.95
AHEAD = (2, 4)  # times today's images
EXPONENTS = (
    0.05,
    3.0,
)  # between which c is looked for; Hestness et al. 2017 find 0.07 to 0.35, small tasks are steeper
LEAST_ERROR = 0.005  # of a point, so that none counts for all the others
LEAST_SIZES = 4  # three numbers are fitted
MOST_WIDTH = 0.04  # of half the interval of the gain at twice the images: wider it says nothing
MOST_RESIDUAL = 0.03  # of the points to the curve, root mean square, where their own errors are no larger
LATEST = 3  # sizes that a class's slope is taken from


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Answers of classifiers trained on so many images of each class, K ``counts``.

    ``right`` D×N says which of N held-out images each of D draws has right.
    """

    counts: NDArray[np.int64]
    right: NDArray[np.bool_]

    @property
    def num_images(self) -> int:
        """Training images of each of them."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class PowerLaw:
    """Accuracy a - b·n^-c of n training images (Figueroa et al. 2012); a is at most 1, b at least 0."""

    a: float
    b: float
    c: float

    def at(self, num_images: float) -> float:
        """The accuracy with so many images."""
        return float(self.a - self.b * num_images**-self.c)


@dataclass(frozen=True, kw_only=True)
class Point:
    """Balanced accuracy of classifiers of ``num_images`` training images, mean of ``draws``, with its standard error.

    The error is that of other training images and of other held-out images.
    """

    num_images: int
    draws: int
    value: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What ``more`` images than today's would add to the balanced accuracy, with the interval ``low`` to ``high``."""

    more: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ClassGain:
    """A class's training images and recall today, and what twice as many of it would add, with a standard error.

    The gain is the recall's slope over the logarithm of the class's images, at most what is missing to 1.
    """

    label: int
    count: int
    recall: float
    gain: float
    error: float


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Accuracy by training images, what is expected of more, and of which classes most.

    ``law`` is None and ``gains`` are empty where the points do not tell, and ``why_not`` says why. ``classes`` come with the
    largest gain first.
    """

    points: tuple[Point, ...]
    law: PowerLaw | None
    gains: tuple[Gain, ...]
    classes: tuple[ClassGain, ...]
    why_not: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def learning_curve(shots: Sequence[Shots], *, labels: Labels, seed: int) -> LearningCurve:
    """The curve of classifiers of growing numbers of images, of which the last have all; ``labels`` N are the held-out images'.

    Intervals are percentiles of ``RESAMPLES`` bootstraps, of the draws and, class by class, of the held-out images (Efron 1979).
    """
    weights = _resampled_weights(labels, seed=seed)
    values = np.stack([each.right.mean(axis=0) @ _class_weights(labels) for each in shots])
    resampled = np.stack([_resampled(each, weights=weights, seed=seed) for each in shots])
    errors = np.maximum(resampled.std(axis=1), LEAST_ERROR)
    points = tuple(
        Point(num_images=each.num_images, draws=len(each.right), value=float(value), error=float(error))
        for each, value, error in zip(shots, values, resampled.std(axis=1), strict=True)
    )
    classes = _class_gains(shots, labels=labels, seed=seed)
    sizes = np.array([each.num_images for each in shots], dtype=np.float64)
    if len(sizes) < LEAST_SIZES:
        why_not = f"{len(sizes)} numbers of images are too few, {LEAST_SIZES} are needed"
        return LearningCurve(points=points, law=None, gains=(), classes=classes, why_not=why_not)
    law = fit_power_law(sizes, values=values, errors=errors)
    laws = [fit_power_law(sizes, values=some, errors=errors) for some in resampled.T]
    gains = tuple(_gain(law, laws, num_images=int(sizes[-1]), times=times) for times in AHEAD)
    why_not = _why_not(points, law=law, gain=gains[0])
    if why_not:
        return LearningCurve(points=points, law=None, gains=(), classes=classes, why_not=why_not)
    return LearningCurve(points=points, law=law, gains=gains, classes=classes)


def fit_power_law(sizes: NDArray[np.float64], *, values: NDArray[np.float64], errors: NDArray[np.float64]) -> PowerLaw:
    """The law of least weighted squares through ``values`` at ``sizes`` S, each counting by 1/error².

    For a given c the shares of mistakes 1 - value are s + b·n^-c with s and b at least 0: a problem that is solved exactly.
    Over log c the rest is minimised between ``EXPONENTS``.
    """
    from scipy.optimize import minimize_scalar, nnls  # which takes a while to load, and not every worker needs it

    def solved(log_c: float) -> tuple[NDArray[np.float64], float]:
        columns = np.stack([np.ones_like(sizes), (sizes / sizes[0]) ** -np.exp(log_c)], axis=1)
        coefficients, distance = nnls(columns / errors[:, None], (1 - values) / errors)
        return coefficients, float(distance)

    starts = np.log(np.geomspace(*EXPONENTS, 12))
    nearest = int(np.argmin([solved(start)[1] for start in starts]))
    around = (starts[max(0, nearest - 1)], starts[min(len(starts) - 1, nearest + 1)])
    log_c = minimize_scalar(lambda log_c: solved(log_c)[1], bounds=around, method="bounded").x
    (rest, scale), c = solved(log_c)[0], float(np.exp(log_c))
    return PowerLaw(a=float(1 - rest), b=float(scale * sizes[0] ** c), c=c)


def _why_not(points: Sequence[Point], *, law: PowerLaw, gain: Gain) -> str:
    """Why the curve says nothing of more images; nothing where it does."""
    first, last = points[0], points[-1]
    if law.b == 0 or last.value - first.value <= 2 * np.hypot(first.error, last.error):
        return "the accuracy does not rise with the images"
    residual = float(np.sqrt(np.mean([(law.at(point.num_images) - point.value) ** 2 for point in points])))
    if residual > max(MOST_RESIDUAL, float(np.mean([point.error for point in points]))):
        return f"the accuracies lie on no power law, {100 * residual:.0f} points beside it"
    if (gain.high - gain.low) / 2 > MOST_WIDTH:
        return f"too uncertain, twice the images are worth {100 * gain.low:.0f} to {100 * gain.high:.0f} points"
    return ""


def _gain(law: PowerLaw, laws: Sequence[PowerLaw], *, num_images: int, times: int) -> Gain:
    def of(each: PowerLaw) -> float:
        return each.at(times * num_images) - each.at(num_images)

    low, high = np.quantile([of(each) for each in laws], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Gain(more=(times - 1) * num_images, value=of(law), low=float(low), high=float(high))


def _class_gains(shots: Sequence[Shots], *, labels: Labels, seed: int) -> tuple[ClassGain, ...]:
    gains = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts = np.array([each.counts[label] for each in shots])
        _, latest = np.unique(counts[::-1], return_index=True)  # of equal counts the last size's
        chosen = [shots[len(shots) - 1 - index] for index in latest if counts[len(shots) - 1 - index] > 0][-LATEST:]
        if not chosen:
            continue
        recalls = np.array([each.right[:, rows].mean() for each in chosen])
        logs = np.log2([each.counts[label] for each in chosen])
        weights = _resampled_weights(np.zeros(len(rows), dtype=np.int64), seed=seed)
        resampled = np.stack(
            [
                _resampled(Shots(counts=each.counts, right=each.right[:, rows]), weights=weights, seed=seed)
                for each in chosen
            ]
        )
        slope = _slope(logs, recalls[:, None])[0]
        gains.append(
            ClassGain(
                label=int(label),
                count=int(counts[-1]),
                recall=float(recalls[-1]),
                gain=float(np.clip(slope, 0.0, 1 - recalls[-1])),
                error=float(_slope(logs, resampled).std()),
            )
        )
    return tuple(sorted(gains, key=lambda each: -each.gain))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares slopes of y S×R over x S; 0 where there is one x."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    return np.asarray(centred @ y / spread) if spread else np.zeros(y.shape[1])


def _resampled(shots: Shots, *, weights: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The mean over resampled draws of the balanced accuracy R on resampled images, by their weights R×N."""
    generator = np.random.default_rng([seed, shots.num_images])
    draws = len(shots.right)
    chosen = generator.integers(draws, size=(len(weights), draws))
    by_draw = weights @ shots.right.T.astype(np.float64)
    return np.asarray(np.take_along_axis(by_draw, chosen, axis=1).mean(axis=1))


def _class_weights(labels: Labels) -> NDArray[np.float64]:
    """What an image counts in the balanced accuracy."""
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(counts) * counts[position]))


def _resampled_weights(labels: Labels, *, seed: int) -> NDArray[np.float64]:
    """What each image counts, R×N, where as many of each class are drawn with replacement."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((RESAMPLES, len(labels)))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        weights[:, rows] = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
    return weights * _class_weights(labels)
