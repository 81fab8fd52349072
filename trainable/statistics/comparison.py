"""What two classifiers' predictions on the same images say of each other, with the uncertainty of a sample."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from trainable.statistics.arrays import Labels
from trainable.statistics.scores import image_losses, score

RESAMPLES = 2000
SEED = 0  # of the resampling: the same predictions give the same interval
MetricOf = Callable[..., NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A value on a sample of images, and between what it lies with the confidence asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One classifier on N labelled images: intervals by metric, scores of the classes that occur, calibration error.

    A class has ``recall`` with ``recall_low`` and ``recall_high`` (Wilson 1927), ``precision``, ``f1`` and ``count``.
    """

    num_images: int
    metrics: dict[str, Interval]
    per_class: dict[str, dict[str, float]]
    ece: float

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One classifier against another on the same N images.

    ``gain`` is how much better the first is by the metric, with the bounds of its one-sided interval at both ends;
    ``only_first`` and ``only_second`` count the images that it or the other alone classifies right; ``p`` is the
    probability of a split as uneven where both are equally good (exact McNemar test, two-sided).
    """

    num_images: int
    gain: Interval
    only_first: int
    only_second: int
    p: float

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    @property
    def figures(self) -> dict[str, Any]:
        """Plain numbers: the ``gain``, its bounds ``low`` and ``high``, the counts and ``p``."""
        gain = {"gain": self.gain.value, "low": self.gain.low, "high": self.gain.high}
        return gain | {"only_first": self.only_first, "only_second": self.only_second, "p": self.p}


@dataclass(frozen=True, kw_only=True)
class Fall:
    """A metric on one sample of images, ``value`` on ``num_images`` of them, against its ``level`` on another.

    The bounds of ``lost``, level - value, are one-sided, each at the confidence asked for.
    """

    value: float
    level: float
    lost: Interval
    num_images: int


def judge(probabilities: NDArray[np.float64], *, labels: Labels, classes: Sequence[str], confidence: float) -> Judged:
    """Scores of probabilities N×K against labels N with percentile intervals over resampled images (Efron 1979)."""
    evaluation = score(probabilities, labels=labels, classes=classes)
    predicted = probabilities.argmax(axis=1)
    metrics = {
        name: _interval(partial(METRICS[name], num_classes=len(classes)), labels, predicted, confidence=confidence)
        for name in METRICS
    }
    per_class = {
        name: scores | _recall_bounds(scores, confidence=confidence)
        for name, scores in evaluation.per_class.items()
        if scores["count"]
    }
    return Judged(num_images=len(labels), metrics=metrics, per_class=per_class, ece=evaluation.metrics["ece"])


def score_interval(
    probabilities: NDArray[np.float64], *, labels: Labels, metric: str, confidence: float
) -> Interval | None:
    """A metric of probabilities N×K against labels N with its percentile interval over resampled images (Efron 1979).

    None for a metric that is no score by labels, and for the calibration error: resampling images adds to it.
    """
    if metric == "loss":
        return _interval(_mean, image_losses(probabilities, labels=labels), confidence=confidence)
    if metric not in METRICS:
        return None
    value = partial(METRICS[metric], num_classes=probabilities.shape[1])
    return _interval(value, labels, probabilities.argmax(axis=1), confidence=confidence)


def wilson(hits: int, *, of: int, confidence: float) -> Interval:
    """A share with its score interval (Wilson 1927), which is honest for small numbers; of none it is from 0 to 1."""
    if of == 0:
        return Interval(float("nan"), 0.0, 1.0)
    bounds = binomtest(hits, of).proportion_ci(confidence, method="wilson")
    return Interval(hits / of, float(bounds.low), float(bounds.high))


def confusion_interval(confusion: Sequence[Sequence[int]], *, metric: str, confidence: float) -> Interval | None:
    """A metric of a confusion K×K (rows are true) with its interval: Wilson's of the accuracy, else the bootstrap's.

    None for a metric that a confusion does not tell.
    """
    counts = np.asarray(confusion)
    if metric not in METRICS:
        return None
    if metric == "accuracy":
        return wilson(int(np.trace(counts)), of=int(counts.sum()), confidence=confidence)
    labels, predicted = (np.repeat(places.ravel(), counts.ravel()) for places in np.indices(counts.shape))
    return _interval(partial(METRICS[metric], num_classes=len(counts)), labels, predicted, confidence=confidence)


def compare(
    first: Labels, second: Labels, *, labels: Labels, num_classes: int, metric: str, confidence: float
) -> Paired:
    """Predicted classes N of two classifiers against labels N; the bootstrap draws the same images for both."""
    value = partial(METRICS[metric], num_classes=num_classes)

    def gained(labels: Labels, first: Labels, second: Labels, axis: int = -1) -> NDArray[np.float64]:
        return value(labels, first) - value(labels, second)

    one_sided = 2 * confidence - 1  # both ends of this interval are one-sided bounds at the confidence asked for
    gain = _interval(gained, labels, first, second, confidence=one_sided)
    return _paired(gain, right=first == labels, other=second == labels)


def compare_probabilities(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    labels: Labels,
    metric: str,
    confidence: float,
) -> Paired | None:
    """:func:`compare` of probabilities N×K, by the loss too, of which less is a gain; None for a metric without an interval."""
    chosen, other = first.argmax(axis=1), second.argmax(axis=1)
    if metric in METRICS:
        return compare(chosen, other, labels=labels, num_classes=first.shape[1], metric=metric, confidence=confidence)
    if metric != "loss":
        return None
    saved = image_losses(second, labels=labels) - image_losses(first, labels=labels)
    gain = _interval(_mean, saved, confidence=2 * confidence - 1)
    return _paired(gain, right=chosen == labels, other=other == labels)


def _paired(gain: Interval, *, right: NDArray[np.bool_], other: NDArray[np.bool_]) -> Paired:
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    split = only_first + only_second
    return Paired(
        num_images=len(right),
        gain=gain,
        only_first=only_first,
        only_second=only_second,
        p=float(binomtest(only_first, split).pvalue) if split else 1.0,
    )


def loss_against(
    now: tuple[Labels, Labels], before: tuple[Labels, Labels], *, num_classes: int, metric: str, confidence: float
) -> Fall:
    """How much worse a classifier is on one sample of images than on another.

    Each is (predicted classes N, labels N). Only classes that both samples have are counted. Raises ValueError where there is
    no such class.
    """
    common = np.intersect1d(now[1], before[1])
    if not len(common):
        raise ValueError("the samples have no class in common")
    # A pair of predicted and true class is drawn as one number: the two samples are not of one length.
    drawn = [predicted * num_classes + labels for predicted, labels in (now, before)]
    drawn = [pairs[np.isin(pairs % num_classes, common)] for pairs in drawn]

    # Over all classes macro F1 counts those that cannot occur as 0.
    scale = num_classes / len(common) if metric == "macro_f1" else 1.0

    def value(pairs: Labels) -> NDArray[np.float64]:
        return scale * METRICS[metric](pairs % num_classes, pairs // num_classes, num_classes=num_classes)

    def lost(now: Labels, before: Labels, axis: int = -1) -> NDArray[np.float64]:
        return value(before) - value(now)

    interval = _interval(lost, *drawn, confidence=2 * confidence - 1, paired=False)
    return Fall(value=float(value(drawn[0])), level=float(value(drawn[1])), lost=interval, num_images=len(drawn[0]))


def _recall_bounds(scores: dict[str, float], *, confidence: float) -> dict[str, float]:
    count = int(scores["count"])
    bounds = wilson(round(scores["recall"] * count), of=count, confidence=confidence)
    return {"recall_low": bounds.low, "recall_high": bounds.high}


def _interval(statistic: MetricOf, *samples: NDArray[Any], confidence: float, paired: bool = True) -> Interval:
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Interval(value, value, value)
    bounds = bootstrap(
        samples,
        statistic,
        paired=paired,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(value, float(bounds.low), float(bounds.high))


def _mean(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return values.mean(axis=-1)  # type: ignore[no-any-return]


def _accuracy(labels: Labels, predicted: Labels, *, num_classes: int, axis: int = -1) -> NDArray[np.float64]:
    return (labels == predicted).mean(axis=-1)  # type: ignore[no-any-return]


def _balanced_accuracy(labels: Labels, predicted: Labels, *, num_classes: int, axis: int = -1) -> NDArray[np.float64]:
    """Mean recall over the classes that occur."""
    recalls = []
    for index in range(num_classes):
        of_class = labels == index
        count = of_class.sum(axis=-1)
        hits = (of_class & (predicted == index)).sum(axis=-1)
        recalls.append(np.where(count > 0, hits / np.maximum(count, 1), np.nan))
    return np.nanmean(np.stack(recalls), axis=0)  # type: ignore[no-any-return]


def _macro_f1(labels: Labels, predicted: Labels, *, num_classes: int, axis: int = -1) -> NDArray[np.float64]:
    """Mean F1 over all classes; 0 for one that neither occurs nor is predicted, as scikit-learn has it."""
    scores = []
    for index in range(num_classes):
        hits = ((labels == index) & (predicted == index)).sum(axis=-1)
        both = (labels == index).sum(axis=-1) + (predicted == index).sum(axis=-1)
        scores.append(2 * hits / np.maximum(both, 1))
    return np.mean(np.stack(scores), axis=0)  # type: ignore[no-any-return]


METRICS: dict[str, MetricOf] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
}
