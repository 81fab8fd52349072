import time

import pytest

from trainable import fit
from trainable.prefix.outputs import Spent
from trainable.training.usage import Clock, usage

PARTS = ("prefix", "waiting", "view", "evaluation", "training")


def test_a_clock_counts_what_runs_in_it_and_begins_anew_when_asked():
    clock = Clock()
    for _ in range(2):
        with clock.running("opening"):
            time.sleep(0.02)
    assert list(clock.timed(iter([1, 2]))) == [1, 2]
    taken = clock.take()
    assert 0.04 <= taken["opening"] < 1
    assert 0 < taken["images"] < 0.02
    assert clock.take() == {}


def test_the_time_of_who_uses_the_images_is_not_that_of_getting_them():
    clock = Clock()
    for _ in clock.timed(iter(range(3))):
        time.sleep(0.02)
    assert clock.take()["images"] < 0.02


def test_the_parts_are_all_of_an_epoch_and_none_is_counted_twice():
    found = usage(
        10.0,
        spent={"opening": 3.0, "images": 1.0, "evaluation": 2.0},
        trained=Spent(computing=2.0, waiting=0.5, saved=7.0),
        measured=Spent(computing=0.5, saved=1.0),
    )
    assert found == {
        "usage/seconds": 10.0,
        "usage/prefix_seconds": 2.5,
        "usage/waiting_seconds": 0.5,
        "usage/view_seconds": 1.5,
        "usage/evaluation_seconds": 1.5,
        "usage/training_seconds": 4.0,
        "usage/prefix_saved_seconds": 8.0,
    }


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_every_epoch_says_what_its_time_was_spent_on(make_config, depth):
    for epoch in fit(make_config(freeze={"depth": depth}, train={"epochs": 2})):
        parts = [epoch.metrics[f"usage/{name}_seconds"] for name in PARTS]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(epoch.metrics["usage/seconds"], rel=1e-6)
        assert (epoch.metrics["usage/prefix_seconds"] > 0) == (depth > 0)
        assert epoch.metrics["usage/training_seconds"] > 0
