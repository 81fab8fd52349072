"""How good predicted probabilities are."""

from collections.abc import Sequence
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
    present = np.unique(labels)
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(np.mean([recall[index] for index in present])),
        "macro_f1": float(f1_score(labels, predicted, labels=indices, average="macro", zero_division=0.0)),
        "loss": float(log_loss(labels, safe, labels=list(indices))) if finite else float("inf"),
        "ece": expected_calibration_error(safe, labels=labels),
    }
    per_class = {
        name: {"recall": float(recall[i]), "precision": float(precision[i]), "f1": float(f1[i]), "count": int(count[i])}
        for i, name in enumerate(classes)
    }
    return Evaluation(metrics, per_class, confusion_matrix(labels, predicted, labels=indices).tolist())


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
