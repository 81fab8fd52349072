"""What the rungs of a refresh measure."""

import numpy as np
import pytest

from search.refresh.measure import FEWEST_ASKED, loss_from, measure_loss
from search.space.promotion_sections import RefreshSection
from search.space.spec import SearchSpec
from trainable.statistics.drift import feature_drift

SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 4},
        "scheduler": {"min_epochs": 1, "max_epochs": 2},
        "base": {"data.path": "images"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
    }
)


def answers(right, wrong):
    labels = np.arange(right + wrong) % 2
    return np.where(np.arange(right + wrong) < right, labels, 1 - labels), labels


def test_a_few_images_say_nothing_of_a_loss():
    few, many = answers(0, FEWEST_ASKED - 1), answers(50, 0)
    assert loss_from(measure_loss(few, many, num_classes=2, spec=SPEC)).low is None
    assert loss_from(measure_loss(many, few, num_classes=2, spec=SPEC)).low is None
    more = loss_from(measure_loss(answers(0, FEWEST_ASKED), many, num_classes=2, spec=SPEC))
    assert (more.value, more.low) == (0.0, 1.0)


def test_a_p_that_no_permutation_could_give_cannot_be_asked_for():
    sides = np.zeros((30, 2), np.float32), np.full((30, 2), 9, np.float32)
    least = feature_drift(*sides, old_labels=[], new_labels=[], seed=0)["all"].p
    assert least <= RefreshSection(drift_p=0.005).drift_p
    with pytest.raises(ValueError, match="drift_p"):
        RefreshSection(drift_p=0.004)


def test_without_a_common_class_nothing_is_measured():
    found = measure_loss(
        (np.zeros(20, int), np.zeros(20, int)), (np.ones(20, int), np.ones(20, int)), num_classes=2, spec=SPEC
    )
    assert found == {"unasked": "no class in common with the champion's own test images"}
    assert loss_from(found) is None
