"""How good predicted probabilities are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support


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
    indices = range(len(classes))
    finite = bool(np.isfinite(probabilities).all())
    safe = probabilities if finite else np.full_like(probabilities, 1 / len(classes))
    predicted = safe.argmax(axis=1)
    precision, recall, f1, count = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0.0)
    answers = Answers(
        labels=labels, probabilities=safe, predicted=predicted, recall=recall, num_classes=len(classes), finite=finite
    )
    per_class = {
        name: {"recall": float(recall[i]), "precision": float(precision[i]), "f1": float(f1[i]), "count": int(count[i])}
        for i, name in enumerate(classes)
    }
    metrics = {name: value(answers) for name, value in SCORES.items()}
    return Evaluation(metrics, per_class, confusion_matrix(labels, predicted, labels=indices).tolist())


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A classifier's answers to N images of K classes.

    ``probabilities`` N×K are 1/K each where the classifier gave some that are not ``finite``; ``predicted`` N are the classes
    they make likeliest, ``recall`` K the share of each class's images among them.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    recall: NDArray[np.float64]
    num_classes: int
    finite: bool


def _accuracy(answers: Answers) -> float:
    return float((answers.predicted == answers.labels).mean())


def _balanced_accuracy(answers: Answers) -> float:
    return float(np.mean([answers.recall[index] for index in np.unique(answers.labels)]))


def _macro_f1(answers: Answers) -> float:
    indices = range(answers.num_classes)
    return float(f1_score(answers.labels, answers.predicted, labels=indices, average="macro", zero_division=0.0))


def _loss(answers: Answers) -> float:
    if not answers.finite:
        return float("inf")
    return float(log_loss(answers.labels, answers.probabilities, labels=list(range(answers.num_classes))))


def _ece(answers: Answers) -> float:
    return expected_calibration_error(answers.probabilities, labels=answers.labels)


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
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = [
        abs(float(right[bins == b].mean() - confidence[bins == b].mean())) * (bins == b).mean() for b in np.unique(bins)
    ]
    return float(sum(gaps))
