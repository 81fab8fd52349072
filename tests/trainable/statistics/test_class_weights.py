import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import softmax

from trainable.statistics.class_weights import METRICS, fit_class_weights
from trainable.statistics.scores import score

SHARES = np.array([0.85, 0.1, 0.05])


def drawn(num, *, seed=0):
    """Logits of classes of which one has most of the images, right as probabilities, and labels drawn by them."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 1.2, (num, 3)) + np.log(SHARES)
    return logits, np.array([chance.choice(3, p=row) for row in softmax(logits, axis=1)])


def measured(logits, *, labels, metric):
    return score(softmax(logits, axis=1), labels=labels, classes=["a", "b", "c"]).metrics[metric]


@pytest.mark.parametrize("metric", METRICS)
def test_shares_of_certain_answers_measure_what_the_answers_do(metric):
    logits, labels = drawn(200)
    certain, truth = np.eye(3)[logits.argmax(axis=1)], np.eye(3)[labels]
    assert METRICS[metric](certain, truth).value == pytest.approx(measured(logits, labels=labels, metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_the_gradient_is_that_of_the_value(metric):
    logits, labels = drawn(12)
    truth = np.eye(3)[labels]

    def value(flat):
        return METRICS[metric](flat.reshape(12, 3), truth).value

    def gradient(flat):
        return METRICS[metric](flat.reshape(12, 3), truth).gradient.ravel()

    assert check_grad(value, gradient, softmax(logits, axis=1).ravel()) < 1e-6


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_rare_classes_count_more_where_the_metric_has_it_so_and_other_images_gain_by_it(metric):
    logits, labels = drawn(2000)
    weights = fit_class_weights(logits, labels=labels, metric=metric)
    assert weights[0] < weights[1:].min()
    assert weights.sum() == pytest.approx(0)
    others, true = drawn(2000, seed=1)
    before, after = (measured(each, labels=true, metric=metric) for each in (others, others + weights))
    assert after > before + 0.03


def test_of_right_probabilities_the_likeliest_class_is_the_most_accurate():
    logits, labels = drawn(4000)
    weights = fit_class_weights(logits, labels=labels, metric="accuracy")
    assert np.abs(weights).max() < 0.3


@pytest.mark.parametrize("metric", METRICS)
def test_a_class_that_is_not_free_or_has_no_image_is_left_where_it_is(metric):
    labels = np.array([0, 1, 1] * 10 + [2] * 4)
    logits = np.random.default_rng(0).normal(0, 1, (34, 3)) - [0, 0, 200]  # the last is never answered
    weights = fit_class_weights(logits, labels=labels, metric=metric, free=np.bincount(labels) >= 5)
    none = fit_class_weights(logits[:30], labels=labels[:30], metric=metric)
    assert (weights[2], none[2]) == (0, 0)
    assert np.isfinite([weights, none]).all()


def test_few_images_move_little():
    logits = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    weights = fit_class_weights(logits, labels=np.array([0, 1, 0]), metric="balanced_accuracy")
    assert np.abs(weights).max() < 3
