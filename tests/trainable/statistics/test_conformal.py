"""Sets of classes that hold the right one as often as was asked for."""

import numpy as np
import pytest
from scipy.special import softmax

from trainable.statistics.conformal import Unsure, covered, fit_unsure


def drawn(num, *, seed):
    chance = np.random.default_rng(seed)
    probabilities = softmax(chance.normal(0, 2, (num, 4)), axis=1)
    return probabilities, np.array([chance.choice(4, p=row) for row in probabilities])


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_right_class_of_other_images_as_often_as_asked(coverage):
    means = []
    for seed in range(40):
        probabilities, labels = drawn(100, seed=seed)
        unsure = fit_unsure(probabilities, labels=labels, coverage=coverage)
        others, theirs = drawn(500, seed=1000 + seed)
        means.append(covered(unsure, probabilities=others, labels=theirs).coverage.value)
    assert np.mean(means) == pytest.approx(coverage, abs=0.015)  # 40 fits to 100 images: standard error below 0.007


def test_the_threshold_of_a_case_worked_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 0, 1, 0])  # given 0.9, 0.8, 0.6 and 0.3
    assert fit_unsure(probabilities, labels=labels, coverage=0.8).least_probability == 0.3  # ceil(5·0.8) = 4 of 4
    assert fit_unsure(probabilities, labels=labels, coverage=0.6).least_probability == 0.6  # 3 of 4
    assert fit_unsure(probabilities, labels=labels, coverage=0.9).least_probability == 0.0  # 5 of 4: too few images


def test_what_sets_are_worth_of_a_case_worked_by_hand():
    unsure = Unsure(coverage=0.75, least_probability=0.4, num_images=9)
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.45, 0.05], [0.34, 0.33, 0.33], [0.2, 0.8, 0.0]])
    assert unsure.plausible(probabilities).sum(axis=1).tolist() == [1, 2, 0, 1]
    found = covered(unsure, probabilities=probabilities, labels=np.array([0, 1, 0, 0]))
    assert found.coverage.value == 0.5
    assert found.sure.value == 0.5
    assert found.accuracy_when_sure.value == 0.5
    assert found.mean_size == 1.0
