"""How good predicted probabilities are.

Counted here, to scikit-learn's last bit, because scikit-learn takes every worker two seconds to load.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """Metrics by short name (``accuracy``), recall, precision and count by class, confusion K×K (rows are true)."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]

    def named(self, split: str) -> dict[str, float]:
        """Metrics under their full names, ``split/accuracy``."""
        return {f"{split}/{name}": value for name, value in self.metrics.items()}

    def as_dict(self) -> dict[str, object]:
        """A plain dict for JSON."""
        return {"metrics": self.metrics, "per_class": self.per_class, "confusion": self.confusion}


def score(probabilities: NDArray[np.float64], *, labels: NDArray[np.int64], classes: Sequence[str]) -> Evaluation:
    """Scores of predicted probabilities N×K against labels N.

    Probabilities that are not finite score as a network that knows nothing, with an infinite loss.
    """
    finite = bool(np.isfinite(probabilities).all())
    safe = probabilities if finite else np.full_like(probabilities, 1 / len(classes))
    predicted = safe.argmax(axis=1)
    confusion = _confusion(labels, predicted=predicted, num_classes=len(classes))
    right, count, given = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = _ratio(right, given), _ratio(right, count), _ratio(2 * right, count + given)
    answers = Answers(labels=labels, probabilities=safe, predicted=predicted, recall=recall, f1=f1, finite=finite)
    per_class = {
        name: {"recall": float(recall[i]), "precision": float(precision[i]), "f1": float(f1[i]), "count": int(count[i])}
        for i, name in enumerate(classes)
    }
    metrics = {name: value(answers) for name, value in SCORES.items()}
    return Evaluation(metrics, per_class, confusion.tolist())


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A classifier's answers to N images of K classes.

    ``probabilities`` N×K are 1/K each where the classifier gave some that are not ``finite``; ``predicted`` N are the classes
    they make likeliest, ``recall`` K the share of each class's images among them, ``f1`` K the F1 of each class.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    finite: bool


def _confusion(labels: NDArray[np.int64], *, predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """How many images of each class, K, were taken for each, K×K."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return pairs.reshape(num_classes, num_classes)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share, 0 where the whole is nothing."""
    return np.where(whole == 0, 0.0, part / np.maximum(whole, 1))


def _accuracy(answers: Answers) -> float:
    return float((answers.predicted == answers.labels).mean())


def _balanced_accuracy(answers: Answers) -> float:
    return float(np.mean([answers.recall[index] for index in np.unique(answers.labels)]))


def _macro_f1(answers: Answers) -> float:
    return float(np.mean(answers.f1))


def _loss(answers: Answers) -> float:
    if not answers.finite:
        return float("inf")
    return float(np.mean(image_losses(answers.probabilities, labels=answers.labels)))


def _ece(answers: Answers) -> float:
    return expected_calibration_error(answers.probabilities, labels=answers.labels)


def image_losses(probabilities: NDArray[np.float64], *, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cross-entropy of each of N images, nats, from probabilities N×K."""
    given = probabilities[np.arange(len(labels)), labels]
    epsilon = float(np.finfo(probabilities.dtype).eps)
    # The logarithm of the C library, which numpy's own differs from in the last bit.
    return np.array([-math.log(share) for share in np.clip(given, epsilon, 1 - epsilon).tolist()])


# What trainable.metrics says of each is its definition.
SCORES: dict[str, Callable[[Answers], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "loss": _loss,
    "ece": _ece,
}


def expected_calibration_error(
    probabilities: NDArray[np.float64], *, labels: NDArray[np.int64], num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their images (Guo et al. 2017)."""
    bins = reliability(probabilities, labels=labels, num_bins=num_bins)
    return float(sum(abs(each.accuracy - each.confidence) * (each.count / len(labels)) for each in bins))


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Of ``count`` images of about one ``confidence``, the mean of it, the share that is classified right."""

    confidence: float
    accuracy: float
    count: int


def reliability(
    probabilities: NDArray[np.float64], *, labels: NDArray[np.int64], num_bins: int = 15
) -> list[ReliabilityBin]:
    """How often a classifier is right by how sure it is, in equal-width bins of the largest probability that have images."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    return [
        ReliabilityBin(
            confidence=float(confidence[bins == b].mean()),
            accuracy=float(right[bins == b].mean()),
            count=int((bins == b).sum()),
        )
        for b in np.unique(bins)
    ]
