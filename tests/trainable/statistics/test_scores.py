"""Scores of predicted probabilities, beside scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from trainable.statistics.scores import score


@pytest.mark.parametrize("seed", range(12))
def test_scores_are_those_of_scikit_learn_to_the_last_bit(seed):
    generator = np.random.default_rng(seed)
    num_classes, num_images = int(generator.integers(2, 12)), int(generator.integers(1, 500))
    margins = (
        generator.normal(size=(num_images, num_classes)) * (0.1, 1, 10, 60)[seed % 4]
    )  # to probabilities of 0 and 1
    probabilities = np.exp(margins - margins.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = generator.integers(0, generator.integers(1, num_classes + 1), num_images)  # some classes have no image
    predicted, indices = probabilities.argmax(axis=1), range(num_classes)

    scores = score(probabilities, labels=labels, classes=[f"class {index}" for index in indices])

    precision, recall, f1, count = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0.0)
    columns = {"precision": precision, "recall": recall, "f1": f1, "count": count}
    for name, column in columns.items():
        assert [of_class[name] for of_class in scores.per_class.values()] == column.tolist()
    assert scores.confusion == confusion_matrix(labels, predicted, labels=indices).tolist()
    macro = f1_score(labels, predicted, labels=indices, average="macro", zero_division=0.0)
    assert scores.metrics["macro_f1"] == macro
    assert scores.metrics["loss"] == log_loss(labels, probabilities, labels=list(indices))


def test_probabilities_that_are_no_numbers_score_as_knowing_nothing():
    scores = score(np.full((4, 2), np.nan), labels=np.array([0, 0, 1, 1]), classes=["a", "b"])
    assert scores.metrics["loss"] == math.inf
    assert scores.metrics["balanced_accuracy"] == 0.5
