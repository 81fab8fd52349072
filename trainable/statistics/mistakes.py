"""Which of a classifier's answers to look at: by the classes it confuses, and by the images it has wrong or is unsure of."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from trainable.statistics.arrays import Labels

Probabilities = NDArray[np.float64]


def most_confident_mistakes(probabilities: Probabilities, *, labels: Labels) -> NDArray[np.int64]:
    """The images N that are classified wrong, the surest first, from probabilities N×K."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def least_sure(probabilities: Probabilities) -> NDArray[np.int64]:
    """All images N, those first whose two likeliest classes are nearest to each other (margin sampling, Scheffer et al. 2001)."""
    ordered = np.sort(probabilities, axis=1)
    return np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")


def suspected_labels(probabilities: Probabilities, *, labels: Labels) -> NDArray[np.int64]:
    """The images whose label confident learning doubts, the most doubtful first (Northcutt et al. 2021).

    A class counts as seen in an image where its probability reaches the mean that it has over its own images; an image is
    suspect where the likeliest of the classes so seen is not its label. They are ordered by their label's probability less
    the largest of another class. It assumes probabilities of a network that was neither trained on the images nor chosen by them.
    """
    num_classes = probabilities.shape[1]
    thresholds = np.full(num_classes, np.inf)  # of a class without an image, which nothing is taken for
    for index in np.unique(labels):
        thresholds[index] = probabilities[labels == index, index].mean()
    seen = np.where(probabilities >= thresholds, probabilities, -1.0)
    suspect = np.flatnonzero((seen.max(axis=1) > 0) & (seen.argmax(axis=1) != labels))
    others = probabilities[suspect].copy()
    rows = np.arange(len(suspect))
    given = others[rows, labels[suspect]]
    others[rows, labels[suspect]] = -1.0
    return suspect[np.argsort(given - others.max(axis=1), kind="stable")]


def most_confused(confusion: NDArray[np.int64], *, limit: int) -> NDArray[np.int64]:
    """At most so many classes of a confusion K×K (rows are true), those with most mistakes, ascending."""
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:limit])


def clustered(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of the classes of a confusion K×K in which those that are confused stand together.

    Average linkage over the shares that two classes have of each other's images, its leaves in the best order (Bar-Joseph et al.
    2001).
    """
    if len(confusion) < 3:
        return np.arange(len(confusion))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0.0)
    return np.asarray(
        leaves_list(linkage(squareform(distances), method="average", optimal_ordering=True)), dtype=np.int64
    )
