"""What every selector keeps: without the target's labels, it tells good networks the way its direction says."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from trainable.config.trial import MetricName
from trainable.metrics import DIRECTIONS
from trainable.statistics.ranking import SELECTORS
from trainable.statistics.selectors import WORST, Outputs, selectors

OF_PREDICTIONS = ("snd", "entropy", "infomax", "bnm", "mcc")  # of the target's alone
OF_SOURCE_LOSS = ("iwv", "dev")
OF_FEATURES = ("mmd", "a_distance")  # of both domains; they tell domains, not networks, and so drive no search
# Dense neighbourhoods are those of uniform predictions too, as its documentation says.
TELLS_CERTAIN_FROM_NOISE = [name for name in OF_PREDICTIONS if name != "snd"]


def probabilities(count=90, *, seed=0, sharpness=2.0):
    logits = sharpness * np.random.default_rng(seed).standard_normal((count, 3))
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def cloud(count, *, seed, shift=0.0):
    return (shift + np.random.default_rng(seed).standard_normal((count, 5))).astype(np.float32)


def given(*, shift=0.5):
    return {
        "target": Outputs(cloud(90, seed=1, shift=shift), probabilities(seed=1)),
        "source": Outputs(cloud(60, seed=2), probabilities(60, seed=2)),
        "source_labels": np.arange(60) % 3,
        "target_train": cloud(80, seed=3, shift=shift),
        "source_train": cloud(120, seed=4),
        "seed": 7,
    }


def sign(name):
    return 1 if SELECTORS[name] == "maximize" else -1


def test_every_selector_is_of_one_kind():
    assert sorted((*OF_PREDICTIONS, *OF_SOURCE_LOSS, *OF_FEATURES)) == sorted(SELECTORS)


@pytest.mark.parametrize("name", SELECTORS)
def test_its_direction_is_the_metrics_where_a_search_can_be_driven_by_it(name):
    metric = f"target/{name}"
    assert (metric in DIRECTIONS) == (metric in get_args(MetricName)) == (name not in OF_FEATURES)
    assert DIRECTIONS.get(metric, SELECTORS[name]) == SELECTORS[name]
    assert sign(name) * WORST[name] == -np.inf


@pytest.mark.parametrize("name", SELECTORS)
def test_it_is_finite_and_the_same_again(name):
    first = selectors(**given())[name]
    np.random.default_rng().standard_normal(3)
    assert np.isfinite(first)
    assert selectors(**given())[name] == first


@pytest.mark.parametrize("name", SELECTORS)
def test_it_depends_on_what_it_is_made_of_and_on_nothing_else(name):
    plain, base = given(), selectors(**given())[name]
    changes = {
        "labels of the source": {"source_labels": (np.arange(60) + 1) % 3},
        "predictions on the target": {"target": replace(plain["target"], probabilities=probabilities(seed=9))},
        "features of the target": {"target": replace(plain["target"], features=cloud(90, seed=9, shift=2.0))},
    }
    kinds = {
        OF_PREDICTIONS: ["predictions on the target"],
        OF_SOURCE_LOSS: ["labels of the source"],
        OF_FEATURES: ["features of the target"],
    }
    (expected,) = [made_of for names, made_of in kinds.items() if name in names]
    found = [change for change, values in changes.items() if selectors(**(plain | values))[name] != base]
    assert found == expected


@pytest.mark.parametrize("name", OF_PREDICTIONS)
def test_the_names_of_classes_and_the_order_of_images_are_nothing_to_it(name):
    plain = given()
    rows, classes = np.random.default_rng(0).permutation(90), [2, 0, 1]
    target = Outputs(plain["target"].features[rows], plain["target"].probabilities[rows][:, classes])
    assert selectors(**(plain | {"target": target}))[name] == pytest.approx(selectors(**plain)[name], rel=1e-6)


@pytest.mark.parametrize("name", TELLS_CERTAIN_FROM_NOISE)
def test_certain_predictions_of_every_class_are_better_than_noise(name):
    noise, certain = probabilities(sharpness=0.1), np.eye(3, dtype=np.float32)[np.arange(90) % 3]
    values = [
        selectors(**(given() | {"target": replace(given()["target"], probabilities=one)}))[name]
        for one in (noise, certain)
    ]
    assert sign(name) * values[1] > sign(name) * values[0]


@pytest.mark.parametrize("name", OF_SOURCE_LOSS)
def test_a_network_that_is_right_on_the_source_is_better_than_one_that_is_wrong(name):
    labels = np.arange(60) % 3
    right, wrong = (0.9 * np.eye(3)[answers] + 0.1 / 3 for answers in (labels, (labels + 1) % 3))
    values = [
        selectors(**(given() | {"source": replace(given()["source"], probabilities=one.astype(np.float32))}))[name]
        for one in (wrong, right)
    ]
    assert sign(name) * values[1] > sign(name) * values[0]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_domains_that_are_alike_are_better_than_domains_apart(name):
    apart, alike = (selectors(**given(shift=shift))[name] for shift in (3.0, 0.0))
    assert sign(name) * alike > sign(name) * apart


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_of_what_is_not_finite_it_is_the_worst(name, bad):
    broken = given()["target"].features.copy()
    broken[3, 1] = bad
    assert selectors(**(given() | {"target": replace(given()["target"], features=broken)}))[name] == WORST[name]


FEATURES = {"random": cloud, "constant": lambda count, *, seed: np.ones((count, 5), np.float32)}
PREDICTIONS = {
    "random": probabilities,
    "of one class": lambda count, *, seed: np.eye(3, dtype=np.float32)[np.zeros(count, int)],
    "of every class alike": lambda count, *, seed: np.full((count, 3), 1 / 3, np.float32),
    "with one class there is": lambda count, *, seed: np.ones((count, 1), np.float32),
}


def few(count, *, features, predictions):
    made, said = FEATURES[features], PREDICTIONS[predictions]
    return selectors(
        target=Outputs(made(count, seed=1), said(count, seed=1)),
        source=Outputs(made(count, seed=2), said(count, seed=2)),
        source_labels=np.zeros(count, int),
        target_train=made(count, seed=3),
        source_train=made(count, seed=4),
        seed=7,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("predictions", PREDICTIONS)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_images_of_one_class_or_of_features_that_are_all_alike_it_is_a_number(count, features, predictions):
    values = few(count, features=features, predictions=predictions)
    assert set(values) == set(SELECTORS)
    assert all(np.isfinite(value) for value in values.values()), values


@pytest.mark.parametrize("count", [0, 1])
def test_of_fewer_than_two_images_it_is_the_worst(count):
    assert few(count, features="random", predictions="random") == WORST
