"""Ranks and their agreement against scipy's and cases worked by hand."""

import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata

from trainable.statistics.ranking import SELECTORS, agreement, mean_ranks

UP_DOWN = {"up": "maximize", "down": "minimize"}


def drawn(*, seed, candidates=12):
    """Values of two selectors; few different ones, so that there are ties."""
    generator = np.random.default_rng(seed)
    return {name: generator.integers(0, 6, candidates).astype(float).tolist() for name in UP_DOWN}


def test_mean_ranks_by_hand():
    values = {"up": [0.9, 0.5, 0.5, 0.1], "down": [2.0, 1.0, 4.0, 3.0]}
    assert mean_ranks(values, directions=UP_DOWN) == [(1 + 2) / 2, (2.5 + 1) / 2, (2.5 + 4) / 2, (4 + 3) / 2]


@pytest.mark.parametrize("seed", range(3))
def test_ranks_and_agreement_are_scipys(seed):
    values = drawn(seed=seed)
    up, down = (np.array(values[name]) for name in UP_DOWN)
    assert mean_ranks(values, directions=UP_DOWN) == pytest.approx((rankdata(-up) + rankdata(down)) / 2)
    expected = pytest.approx(kendalltau(up, -down).statistic)
    assert agreement(values, directions=UP_DOWN) == {("up", "down"): expected}


def test_agreement_by_hand():
    """Of three pairs, c ties one and a ranks all; with two more in the same order τ_b is 2/√(3·2)."""
    values = {"a": [1.0, 2.0, 3.0], "b": [-1.0, -2.0, -3.0], "c": [1.0, 2.0, 2.0], "d": [5.0, 5.0, 5.0]}
    directions = {"a": "maximize", "b": "minimize", "c": "minimize", "d": "minimize"}
    found = agreement(values, directions=directions)
    assert list(found) == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert found["a", "b"] == pytest.approx(1)
    assert found["a", "c"] == pytest.approx(-2 / 6**0.5)
    assert found["a", "d"] == 0


def test_infinite_values_tie_and_undefined_ones_are_the_worst():
    values = {"up": [-inf, 1.0, nan, -inf], "down": [inf, nan, 0.0, 1.0]}
    assert mean_ranks(values, directions=UP_DOWN) == [(3 + 3.5) / 2, (1 + 3.5) / 2, (3 + 1) / 2, (3 + 2) / 2]
    assert agreement({"up": [inf, inf, 0.0], "down": [nan, inf, 1.0]}, directions=UP_DOWN)["up", "down"] == -1


def test_selectors_need_the_same_candidates_and_a_direction():
    with pytest.raises(ValueError, match="shorter"):
        mean_ranks({"up": [1.0, 2.0], "down": [1.0]}, directions=UP_DOWN)
    with pytest.raises(KeyError, match="sideways"):
        mean_ranks({"sideways": [1.0]}, directions=UP_DOWN)
    assert mean_ranks({}, directions=SELECTORS) == []


def test_ranking_needs_neither_torch_nor_numpy():
    command = "import sys, trainable.statistics.ranking; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
