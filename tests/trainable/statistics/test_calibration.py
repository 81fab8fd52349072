import numpy as np
import pytest
from scipy.special import softmax

from trainable.statistics.calibration import (
    Calibration,
    choose_held_out,
    cross_entropy,
    fit_calibration,
    folds,
    held_out,
    overconfidence,
)
from trainable.statistics.scores import expected_calibration_error

SHARES = np.array([0.7, 0.2, 0.1])
LOG_SHARES = np.log(SHARES)


def drawn(num, *, tau=0.0, temperature=1.0, seed=0):
    """Logits that a calibration brings back to those that the labels were drawn by, and the labels."""
    chance = np.random.default_rng(seed)
    right = chance.normal(0, 1.5, (num, 3)) + LOG_SHARES
    labels = np.array([chance.choice(3, p=row) for row in softmax(right, axis=1)])
    return right * temperature + tau * LOG_SHARES, labels


@pytest.mark.parametrize(("tau", "temperature"), [(0.0, 1.0), (0.5, 2.0), (-0.8, 0.5)])
def test_what_logits_were_moved_and_sharpened_by_is_found(tau, temperature):
    logits, labels = drawn(4000, tau=tau, temperature=temperature)
    found = fit_calibration(logits, labels=labels, log_shares=LOG_SHARES, balanced=False)
    assert found.tau == pytest.approx(tau, abs=0.15)
    assert found.temperature == pytest.approx(temperature, rel=0.1)


def test_where_classes_weigh_alike_all_of_their_shares_are_taken_off():
    logits, labels = drawn(4000)
    log_shares = np.log(np.bincount(labels) / len(labels))
    found = fit_calibration(logits, labels=labels, log_shares=log_shares, balanced=True)
    assert found.tau == pytest.approx(1.0, abs=0.15)


def test_images_that_are_all_right_do_not_make_a_classifier_infinitely_sure():
    labels = np.arange(30) % 3
    found = fit_calibration(2.0 * np.eye(3)[labels], labels=labels, log_shares=LOG_SHARES, balanced=False)
    assert 0.4 < found.temperature < 1


def test_the_weight_of_shares_can_be_left_alone():
    logits, labels = drawn(500, tau=0.5, temperature=2.0)
    found = fit_calibration(logits, labels=labels, log_shares=LOG_SHARES, balanced=False, fits_tau=False)
    assert found.tau == 0
    assert found.temperature > 1.3


def test_a_calibration_that_is_none_changes_nothing():
    logits, _ = drawn(5)
    np.testing.assert_array_equal(Calibration().apply(logits, log_shares=LOG_SHARES), logits)


def test_the_balanced_cross_entropy_is_the_mean_of_the_classes_own():
    logits, labels = drawn(200)
    each = [cross_entropy(logits[labels == k], labels=labels[labels == k], balanced=False) for k in range(3)]
    assert cross_entropy(logits, labels=labels, balanced=True) == pytest.approx(np.mean(each))


def test_each_image_is_changed_by_a_rule_that_was_fitted_to_others():
    logits, labels = drawn(60)
    seen = []

    def fit(some, of):
        seen.append({tuple(row) for row in some})

        def apply(others):
            assert not seen[-1] & {tuple(row) for row in others}
            assert set(of) == set(labels)  # of every class in every fold
            return others

        return apply

    np.testing.assert_array_equal(held_out(logits, labels=labels, fit=fit), logits)
    assert len(seen) == 5


def test_most_of_the_calibration_error_goes_from_images_that_it_was_not_fitted_to():
    logits, labels = drawn(1000, temperature=3.0)

    def fit(some, of):
        found = fit_calibration(some, labels=of, log_shares=LOG_SHARES, balanced=False)
        return lambda others: found.apply(others, log_shares=LOG_SHARES)

    def error(of):
        return expected_calibration_error(softmax(of, axis=1), labels=labels)

    assert error(held_out(logits, labels=labels, fit=fit)) < error(logits) / 3


def test_fewer_images_than_folds_are_enough():
    logits, labels = drawn(3)
    assert held_out(logits, labels=labels, fit=lambda *_: lambda others: others).shape == (3, 3)


def test_folds_part_the_images_and_each_has_its_share_of_every_class():
    labels = np.array([0] * 25 + [1] * 10)
    parts = list(folds(labels))
    assert (np.sum(parts, axis=0) == 1).all()
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[5, 2]] * 5


def test_of_several_logits_the_best_are_chosen_and_each_image_is_judged_by_the_choice_of_others():
    labels = np.arange(40) % 2
    sure, wrong = 2.0 * np.eye(2)[labels], -2.0 * np.eye(2)[labels]
    assert choose_held_out([wrong, sure], labels=labels, balanced=True)[0] == 1
    lucky = sure.copy()  # right where the others are wrong and the other way round: no choice by others knows
    (first, *_) = folds(labels)
    lucky[first] = wrong[first]
    best, chosen = choose_held_out([lucky, wrong], labels=labels, balanced=False)
    assert best == 0
    assert np.array_equal(chosen, lucky)
    best, chosen = choose_held_out([wrong, lucky], labels=labels, balanced=False)
    assert (best, np.array_equal(chosen, lucky)) == (1, True)


def test_overconfidence_is_what_is_believed_beyond_what_was_right():
    of_source = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])  # three of four are right
    assert overconfidence(np.array([[1.0, 0.0], [0.1, 0.9]]), of_source=of_source, labels=labels) == pytest.approx(0.2)
