import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engine.coordinates import Coordinates
from search.space.dimension import parse_dimension
from search.space.space import make_space


def coordinates(**vary):
    dimensions = {path.replace("__", "."): parse_dimension(raw, where=path) for path, raw in vary.items()}
    return Coordinates(make_space(dimensions))


MIXED = coordinates(
    freeze__depth={"choice": [0.5, "stage3", ["stage3", "stage4"]]},
    optimizer__lr={"log": [1e-4, 1e-1]},
    model__head={"choice": ["linear", "mlp"]},
    model__head_hidden={"int": [128, 1024], "log": True, "when": {"model.head": "mlp"}},
    loss__label_smoothing={"uniform": [0.0, 0.2], "step": 0.05},
    train__batch_size={"choice": [16, 64, 32]},
    data__image_size={"int": [64, 224], "step": 32},
)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_drawn_point_is_one_of_the_space_and_comes_back_from_its_values(seed):
    (row,) = MIXED.draw(np.random.default_rng(seed), count=1)
    params = MIXED.params(row)
    assert MIXED.space.contains(params)
    (again,) = MIXED.rows([params])
    back = MIXED.params(again)
    assert back.pop("optimizer.lr") == pytest.approx(params.pop("optimizer.lr"))
    assert back == params
    for first, second in zip(MIXED.features(row[None]), MIXED.features(again[None]), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-9)


def test_a_path_is_active_only_where_its_conditions_hold():
    rows = MIXED.draw(np.random.default_rng(0), count=200)
    points = [MIXED.params(row) for row in rows]
    assert {point["model.head"] for point in points} == {"linear", "mlp"}
    assert all(("model.head_hidden" in point) == (point["model.head"] == "mlp") for point in points)


def test_a_condition_on_a_whole_number_holds_at_that_number_alone():
    nested = coordinates(
        train__workers={"int": [1, 3]}, loss__gamma={"uniform": [0.0, 1.0], "when": {"train.workers": [2]}}
    )
    points = [nested.params(row) for row in nested.draw(np.random.default_rng(0), count=100)]
    assert {point["train.workers"] for point in points} == {1, 2, 3}
    assert all(("loss.gamma" in point) == (point["train.workers"] == 2) for point in points)


def test_members_without_an_order_are_equally_far_apart_and_numbers_lie_in_theirs():
    rows = MIXED.rows(
        [{"freeze.depth": member, "train.batch_size": 16} for member in (0.5, "stage3", ["stage3", "stage4"])]
    )
    depth = MIXED.features(rows)[list(MIXED.space.dimensions).index("freeze.depth")]
    distances = np.linalg.norm(depth[:, None] - depth[None], axis=-1)
    np.testing.assert_allclose(distances, 1 - np.eye(3))
    sizes = MIXED.rows([{"train.batch_size": size} for size in (16, 32, 64)])
    column = MIXED.features(sizes)[list(MIXED.space.dimensions).index("train.batch_size")]
    np.testing.assert_allclose(column[:, 0], [0.0, 0.5, 1.0])


def test_a_logarithmic_range_is_halved_at_its_geometric_mean():
    log = coordinates(optimizer__lr={"log": [1e-4, 1e-2]})
    np.testing.assert_allclose(log.rows([{"optimizer.lr": 1e-3}]), [[0.5]])
    assert log.params(np.array([0.5]))["optimizer.lr"] == pytest.approx(1e-3)


def test_a_path_that_a_point_lacks_lies_in_the_middle():
    rows = MIXED.rows([{}])
    assert all(math.isnan(value) for value in rows[0])
    features = dict(zip(MIXED.space.dimensions, MIXED.features(rows), strict=True))
    np.testing.assert_allclose(features["optimizer.lr"], [[0.5]])
    np.testing.assert_allclose(features["model.head"], [[0.0, 0.0]])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_moved_point_differs_in_some_paths_and_stays_in_the_space(seed):
    chance = np.random.default_rng(seed)
    rows = MIXED.draw(chance, count=20)
    moved = MIXED.near(rows, chance=chance)
    assert all(MIXED.space.contains(MIXED.params(row)) for row in moved)
    changed = sum(MIXED.params(before) != MIXED.params(after) for before, after in zip(rows, moved, strict=True))
    assert changed >= 10
