import numpy as np
import pytest

from search.engine import curves
from search.engine.curves import NAMES, Rows, fit_curves


def rows_of(points, epochs, trials, *, last=10):
    points = np.asarray(points, dtype=float)
    progress = np.log(np.asarray(epochs, dtype=float)) / np.log(last)
    return Rows(features=[points[:, [0]], points[:, [1]]], progress=progress, trials=np.asarray(trials))


def some_rows(count=30, *, seed=0):
    chance = np.random.default_rng(seed)
    points = chance.random((count // 3, 2)).repeat(3, axis=0)
    return rows_of(points, np.tile([1, 3, 10], count // 3), np.arange(count // 3).repeat(3))


def test_the_kernel_is_symmetric_and_positive():
    rows = some_rows()
    logs = np.random.default_rng(1).standard_normal(2 + len(NAMES)) * 0.3
    kernel = curves._Pair(rows, rows).kernel(logs)
    np.testing.assert_allclose(kernel, kernel.T)
    assert np.linalg.eigvalsh(kernel).min() > -1e-9


def test_the_slopes_are_those_of_the_kernel_by_finite_differences():
    rows, chance = some_rows(), np.random.default_rng(2)
    pair, logs = curves._Pair(rows, rows), chance.standard_normal(2 + len(NAMES)) * 0.3
    weights = chance.standard_normal((30, 30))
    slopes = pair.slopes(logs, weights=weights)
    for index in range(len(logs) - 1):
        step = np.zeros(len(logs))
        step[index] = 1e-5
        difference = (weights * (pair.kernel(logs + step) - pair.kernel(logs - step))).sum() / 2e-5
        assert slopes[index] == pytest.approx(difference, rel=1e-5, abs=1e-6)


def test_a_path_that_says_nothing_gets_the_longer_length():
    chance = np.random.default_rng(3)
    points = chance.random((60, 2))
    values = np.sin(6 * points[:, 0])
    model = fit_curves(rows_of(points, np.ones(60), np.arange(60)), (values - values.mean()) / values.std())
    assert model.logs[1] - model.logs[0] > 1


def test_the_end_of_a_curve_is_foreseen_from_its_beginning_and_from_others():
    chance = np.random.default_rng(4)
    points = chance.random((20, 2))
    ends = 2 * points[:, 0] - 1
    epochs = np.array([1, 3, 10])
    whole = np.arange(15)
    rows = rows_of(points[whole].repeat(3, axis=0), np.tile(epochs, 15), whole.repeat(3))
    values = np.concatenate([end + 0.5 * np.log(epochs) / np.log(10) for end in ends[whole]])
    begun = rows_of(points[15:], np.ones(5), np.arange(15, 20))
    model = fit_curves(rows.joined(begun), np.concatenate([values, ends[15:]]))
    means, deviations = model.predict(rows_of(points[15:], np.full(5, 10), np.arange(15, 20)))
    np.testing.assert_allclose(means, ends[15:] + 0.5, atol=0.15)
    assert deviations.max() < 0.3


def test_what_is_far_from_all_that_was_seen_is_uncertain():
    rows = rows_of([[0.1, 0.1], [0.12, 0.1], [0.1, 0.13]], [10, 10, 10], [0, 1, 2])
    model = fit_curves(rows, np.array([0.5, 0.4, 0.6]))
    _, near = model.predict(rows_of([[0.11, 0.11]], [10], [3]))
    _, far = model.predict(rows_of([[0.95, 0.95]], [10], [3]))
    assert far > near


def test_believing_takes_away_doubt_and_changes_no_expectation():
    rows = some_rows()
    model = fit_curves(rows, np.random.default_rng(5).standard_normal(30))
    place = rows_of([[0.5, 0.5]], [10], [99])
    before, doubt = model.predict(place)
    after, left = model.believing(place).predict(place)
    assert after == pytest.approx(before, abs=0.05)
    assert left < doubt
    assert model.believing(rows_of(np.zeros((0, 2)), [], [])) is model
