"""A classifier fitted to features, and the linear head that it amounts to.

scikit-learn is loaded where one is fitted: it takes two seconds, and most workers never do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.errors import UserError, nearest
from trainable.statistics.arrays import Array

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

NUM_NEIGHBOURS = 5
ABSENT_CLASS_LOGIT = -20.0  # under e⁻²⁰ of the probability: the largest of the other logits, which sum to 0, is above 0
# Classes weigh the same, but for knn, which knows no class weights.
CLASSIFIERS: dict[str, Callable[[float, int], Any]] = {
    "logreg": lambda c, _: import_module("sklearn.linear_model").LogisticRegression(
        C=c, max_iter=2000, class_weight="balanced"
    ),
    "linear_svm": lambda c, _: import_module("sklearn.svm").LinearSVC(
        C=c, max_iter=10_000, class_weight="balanced", random_state=0
    ),
    "ridge": lambda c, _: import_module("sklearn.linear_model").RidgeClassifier(alpha=1 / c, class_weight="balanced"),
    "knn": lambda _, num_images: import_module("sklearn.neighbors").KNeighborsClassifier(
        min(NUM_NEIGHBOURS, num_images)
    ),
}


@dataclass(frozen=True)
class Probe:
    """A fitted classifier behind the scaler of its features."""

    pipeline: "Pipeline"

    def probabilities(self, features: Array, *, num_classes: int) -> NDArray[Any]:
        """Probabilities N×K of features N×F, in the classifier's precision; 0 for a class that it never saw.

        Those of `linear_svm` and `ridge` are the softmax of their margins, for two classes of (-margin, margin): they rank
        the classes as the classifier does and are not calibrated.
        """
        of_seen = self._of_seen_classes(features)
        probabilities = np.zeros((len(features), num_classes), dtype=of_seen.dtype)
        probabilities[:, self.pipeline.classes_] = of_seen
        return probabilities

    def _of_seen_classes(self, features: Array) -> NDArray[Any]:
        if hasattr(self.pipeline, "predict_proba"):
            return np.asarray(self.pipeline.predict_proba(features))
        margins = torch.from_numpy(np.asarray(self.pipeline.decision_function(features), dtype=np.float64))
        if margins.ndim == 1:
            margins = torch.stack([-margins, margins], dim=1)
        return margins.softmax(dim=1).numpy()


def fit_probe(features: Array, labels: NDArray[np.int64], *, kind: str, c: float = 1.0) -> Probe:
    """A probe of features N×F and labels N, on features of mean 0 and deviation 1.

    ``c`` is the inverse L2 strength (`ridge`: α = 1/c; `knn` has none). Raises UserError for an unknown ``kind`` and where
    there are fewer than two classes.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind not in CLASSIFIERS:
        raise UserError(f"probe: unknown kind {kind!r}, there are {', '.join(CLASSIFIERS)}{nearest(kind, CLASSIFIERS)}")
    if len(np.unique(labels)) < 2:
        raise UserError("probe: the training split has images of a single class; a classifier needs two")
    pipeline = make_pipeline(StandardScaler(), CLASSIFIERS[kind](c, len(labels)))
    return Probe(pipeline.fit(features, labels))


def solved_head(
    features: Array, labels: NDArray[np.int64], *, num_classes: int, c: float = 1.0, kind: str = "logreg"
) -> tuple[Tensor, Tensor]:
    """Weight K×F and bias K, float32, of the linear head on raw features that a `logreg` or `ridge` probe amounts to.

    With it training starts where the probe ended (LP-FT, Kumar et al. 2022). The scaler is folded in, so that the softmax
    of W·x+b are the probe's probabilities; two classes have the logits (-d/2, d/2) of the decision d of `logreg`, of `ridge`
    (-d, d). A feature that never varies weighs nothing, a class without images has weight 0 and a logit of
    ``ABSENT_CLASS_LOGIT``. Raises UserError where there are fewer than two classes.
    """
    scaler, solved = fit_probe(features, labels, kind=kind, c=c).pipeline
    coefficients = np.atleast_2d(solved.coef_).astype(np.float64)
    intercepts = np.atleast_1d(solved.intercept_).astype(np.float64)
    if len(solved.classes_) == 2:
        share = 0.5 if kind == "logreg" else 1.0
        coefficients, intercepts = (np.concatenate([-rows, rows]) * share for rows in (coefficients, intercepts))
    seen = coefficients / scaler.scale_
    weight = np.zeros((num_classes, features.shape[1]))
    bias = np.full(num_classes, ABSENT_CLASS_LOGIT)
    weight[solved.classes_] = seen
    bias[solved.classes_] = intercepts - seen @ scaler.mean_
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
