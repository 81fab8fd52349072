"""Transferability scores against brute force, direct formulas and cases worked by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from trainable.statistics.transferability import class_distance_ratio, h_score, logme, mmd, mmd_permutation_test

SCORES = {"logme": logme, "h_score": h_score, "class_distance_ratio": class_distance_ratio}


def clouds(*, apart, num_classes=3, count=90, width=6, seed=0):
    """Gaussian clouds of spread 1, one a class, ``apart`` times the same centres."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    centres = generator.standard_normal((num_classes, width))
    return (apart * centres[labels] + generator.standard_normal((count, width))).astype(np.float32), labels


def rotation(width, *, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def largest_evidence(features, target):
    """Brute force: the density of the target under N(0, I/β + F·Fᵀ/α) for the best α and β."""
    features = features.astype(np.float64)

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(target)) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(target, np.zeros(len(target)), covariance, allow_singular=True)

    starts = [(a, b) for a in (-2.0, 2.0, 6.0) for b in (-1.0, 2.0, 5.0)]
    return max(-minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-4}).fun for start in starts)


@pytest.mark.parametrize(("count", "width"), [(40, 3), (40, 12), (12, 30)])
def test_logme_is_the_largest_evidence_that_a_search_finds(count, width):
    features, labels = clouds(apart=0.7, count=count, width=width)
    expected = np.mean([largest_evidence(features, (labels == label).astype(float)) for label in range(3)]) / count
    assert logme(features, labels) == pytest.approx(expected, abs=1e-5)


def test_logme_of_features_that_say_nothing_is_that_of_noise_alone():
    """Without weights the best β is N/‖y‖² = 2, so that an image's log evidence is log(β/2π)/2 - 1/2."""
    features = np.tile([[1.0], [1.0], [-1.0], [-1.0]], (10, 1))
    labels = np.tile([0, 1, 0, 1], 10)
    assert logme(features, labels) == pytest.approx(-np.log(np.pi) / 2 - 0.5, abs=1e-6)
    assert logme(np.zeros((40, 3)), labels) == pytest.approx(-np.log(np.pi) / 2 - 0.5)


@pytest.mark.parametrize("name", SCORES)
def test_classes_further_apart_score_higher(name):
    scores = [SCORES[name](*clouds(apart=apart)) for apart in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


@pytest.mark.parametrize("name", SCORES)
def test_scale_rotation_order_and_the_names_of_classes_do_not_matter(name):
    features, labels = clouds(apart=1.0)
    expected = pytest.approx(SCORES[name](features, labels), rel=1e-4)
    order = np.random.default_rng(1).permutation(len(labels))
    assert SCORES[name](features * 10, labels) == expected
    assert SCORES[name](features @ rotation(6), labels) == expected
    assert SCORES[name](features[order], labels[order]) == expected
    assert SCORES[name](features, np.array([7, 0, 3])[labels]) == expected


@pytest.mark.parametrize("name", ["h_score", "class_distance_ratio"])
def test_the_place_of_all_features_together_does_not_matter(name):
    features, labels = clouds(apart=1.0)
    assert SCORES[name](features + 5, labels) == pytest.approx(SCORES[name](features, labels), rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_numbers_where_features_are_dead_or_more_than_images(name):
    features, labels = clouds(apart=1.0, count=12, width=50)
    features[:, 3] = 0
    features[:, 4] = 2.5
    assert np.isfinite(SCORES[name](features, labels))
    assert np.isfinite(logme(np.ones((12, 1)), labels))
    assert np.isfinite(logme((labels[:, None] == np.arange(3)).astype(float), labels))


def test_the_h_score_of_many_images_is_the_plain_formula():
    features, labels = clouds(apart=1.0, count=30_000)
    covariance = np.cov(features.astype(np.float64), rowvar=False, bias=True)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    plain = np.trace(np.linalg.inv(covariance) @ np.cov(means, rowvar=False, bias=True))
    assert h_score(features, labels) == pytest.approx(plain, rel=1e-3)  # the shrinkage falls with 1/N


def test_the_h_score_shrinks_as_ledoit_and_wolf_say():
    features, labels = clouds(apart=1.0, count=30, width=20)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    sample = centred.T @ centred / 30
    target = np.trace(sample) / 20 * np.eye(20)
    spread = np.mean([np.sum((np.outer(row, row) - sample) ** 2) for row in centred]) / 30
    shrinkage = min(1.0, spread / np.sum((sample - target) ** 2))
    between = sum(np.outer(mean, mean) for mean in (centred[labels == label].mean(axis=0) for label in range(3))) / 3
    expected = (1 - shrinkage) * np.trace(np.linalg.solve((1 - shrinkage) * sample + shrinkage * target, between))
    assert 0 < shrinkage < 1
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-6)


def test_the_h_score_does_not_take_many_useless_features_for_a_good_sign():
    """Of 400 features without any meaning the plain formula makes K-1 = 2, the most there is."""
    features, labels = clouds(apart=0.0, count=90, width=400)
    assert h_score(features, labels) < 0.5


def test_distances_between_and_within_classes_by_hand():
    """Classes {0, 2} and {10, 12}: means 1 and 11 are 5 from 6, images 1 from their class's mean."""
    features = np.array([[0.0], [2.0], [10.0], [12.0]])
    assert class_distance_ratio(features, np.array([0, 0, 1, 1])) == 25.0
    assert class_distance_ratio(np.array([[0.0], [0.0], [1.0]]), np.array([0, 0, 1])) == float("inf")


def test_mmd_of_two_points_by_hand():
    """One distance, so its median too: each sample has k = 1 with itself, and k = mean of exp(-1/width) across."""
    across = np.mean(np.exp([-4.0, -2.0, -1.0, -0.5, -0.25]))
    assert mmd(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0]])) == pytest.approx(2 - 2 * across)


def test_mmd_is_zero_for_the_same_sample_and_grows_with_the_distance():
    x, _ = clouds(apart=0.0, seed=1)
    y, _ = clouds(apart=0.0, seed=2)
    assert mmd(x, x) == pytest.approx(0, abs=1e-12)
    assert mmd(np.ones((3, 2)), np.ones((4, 2))) == 0
    values = [mmd(x, y + shift) for shift in (0.0, 0.5, 1.0, 3.0)]
    assert values == sorted(values)
    assert values[0] < 0.05 < values[-1] <= 2
    assert mmd(x * 10, (y + 1) * 10) == pytest.approx(mmd(x, y + 1), rel=1e-4)
    assert mmd(x[:30], y + 1) == pytest.approx(mmd(y + 1, x[:30]))


def test_the_permutation_test_finds_a_shift_and_no_difference_where_there_is_none():
    x, _ = clouds(apart=0.0, count=40, seed=1)
    y, _ = clouds(apart=0.0, count=60, seed=2)
    value, p = mmd_permutation_test(x, y + 1, permutations=199, seed=0)
    assert value == pytest.approx(mmd(x, y + 1))
    assert p == 1 / 200
    assert mmd_permutation_test(x, y + 1, permutations=199, seed=0) == (value, p)
    assert mmd_permutation_test(x, x, permutations=50, seed=0)[1] == 1.0


def test_the_permutation_test_rejects_the_same_distribution_no_more_often_than_it_says():
    """p ≤ 0.2 in a fifth of 100 draws: within 4 standard deviations, 0.04 each."""
    ps = []
    for seed in range(100):
        draws = np.random.default_rng(seed).standard_normal((30, 3))
        ps.append(mmd_permutation_test(draws[:12], draws[12:], permutations=49, seed=seed)[1])
    assert 0.04 <= np.mean(np.array(ps) <= 0.2) <= 0.36
