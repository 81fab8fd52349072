from datetime import UTC, datetime

import numpy as np
import pytest

from search.engine.coordinates import Coordinates
from search.engine.cost import epoch_seconds, forecast_seconds
from search.ledger.trials import EpochRecord, Trial
from search.space.dimension import parse_dimension
from search.space.space import make_space

SPACE = make_space(
    {
        "freeze.depth": parse_dimension({"choice": [0, 0.5, 1.0]}, where="depth"),
        "optimizer.lr": parse_dimension({"log": [1e-4, 1e-1]}, where="lr"),
    }
)
EPOCH = {0: 10.0, 0.5: 4.0, 1.0: 0.2}


def trial(number, *, depth, lr, seconds):
    epochs = tuple(
        EpochRecord(number=index + 1, metrics={"usage/seconds": value}, recorded=datetime.min.replace(tzinfo=UTC))
        for index, value in enumerate(seconds)
    )
    params = {"freeze.depth": depth, "optimizer.lr": lr}
    return Trial(number=number, params=params, state="RUNNING", epochs=epochs, target=len(seconds), origin="")


def test_the_first_epoch_which_fills_what_is_kept_does_not_count_alone():
    assert epoch_seconds(trial(0, depth=0, lr=1e-3, seconds=[30.0, 10.0, 11.0])) == 11.0
    assert epoch_seconds(trial(0, depth=0, lr=1e-3, seconds=[])) is None


def test_seconds_follow_the_path_that_decides_them():
    chance = np.random.default_rng(0)
    trials = [
        trial(
            number,
            depth=depth,
            lr=float(10 ** -chance.uniform(1, 4)),
            seconds=[EPOCH[depth] * chance.uniform(0.9, 1.1)],
        )
        for number, depth in enumerate([0, 0.5, 1.0] * 5)
    ]
    coordinates = Coordinates(SPACE)
    rows = coordinates.rows([{"freeze.depth": depth, "optimizer.lr": 3e-3} for depth in EPOCH])
    assert forecast_seconds(trials, coordinates=coordinates, rows=rows) == pytest.approx(list(EPOCH.values()), rel=0.2)


def test_without_a_measurement_all_cost_the_same():
    coordinates = Coordinates(SPACE)
    rows = coordinates.draw(np.random.default_rng(0), count=3)
    assert forecast_seconds([], coordinates=coordinates, rows=rows).tolist() == [1, 1, 1]
    one = trial(0, depth=0, lr=1e-3, seconds=[3.0])
    assert forecast_seconds([one], coordinates=coordinates, rows=rows).tolist() == pytest.approx([3, 3, 3])
