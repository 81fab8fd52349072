"""How many trials share a GPU, on made-up tables of what was measured."""

from datetime import UTC, datetime

import pytest

from search.engine.packing import Packed, packed
from search.ledger.trials import EpochRecord, Trial

GB = 1e9
RESNET = {"model.name": "resnet18", "freeze.depth": 0.5, "optimizer.lr": 0.1}


def trial(*epochs, params=RESNET, number=0):
    records = [
        EpochRecord(number=index, metrics=metrics, recorded=datetime.now(UTC))
        for index, metrics in enumerate(epochs, 1)
    ]
    return Trial(number=number, params=params, state="RUNNING", epochs=tuple(records), target=9, origin="random")


def epoch(share, *, seconds, gigabytes=9.0, total=80.0, **more):
    return {
        "usage/gpu_share": share,
        "usage/gpu_bytes": gigabytes * GB,
        "usage/gpu_total_bytes": total * GB,
        "usage/seconds": seconds,
        **more,
    }


def together(*trials, params=RESNET, most=16):
    return packed(trials, params=params, most=most).together


def test_the_first_of_a_kind_has_a_gpu_alone():
    assert packed([], params=RESNET, most=16) == Packed(together=1)
    assert packed([], params=RESNET, most=16).share == 1.0
    assert together(trial({"usage/seconds": 10.0})) == 1  # as one on a CPU, or begun before this was measured


def test_then_as_many_as_bytes_allow_are_tried_twice_as_many_at_a_time():
    measured = [trial(epoch(1.0, seconds=10.0))]
    assert packed(measured, params=RESNET, most=16) == Packed(together=2, num_bytes=9 * GB)
    measured.append(trial(epoch(0.5, seconds=11.0, gigabytes=18.0), number=1))
    assert together(*measured) == 4
    measured.append(trial(epoch(0.25, seconds=14.0, gigabytes=36.0), number=2))
    assert together(*measured) == 8  # 8 x 9 GB are 72, of which 73.6 may be taken
    assert together(*measured, most=5) == 5  # CPUs for no more


@pytest.mark.parametrize(("gigabytes", "expected"), [(9.0, 2), (36.8, 2), (36.9, 1), (79.0, 1), (90.0, 1)])
def test_what_does_not_fit_beside_another_stays_alone(gigabytes, expected):
    assert together(trial(epoch(1.0, seconds=10.0, gigabytes=gigabytes))) == expected


def test_of_gpus_that_differ_the_smallest_counts():
    assert together(trial(epoch(1.0, seconds=9.0, total=80.0), epoch(1.0, seconds=9.0, total=16.0))) == 1


def test_more_are_not_put_together_than_are_faster_together():
    alone, two = trial(epoch(1.0, seconds=10.0)), trial(epoch(0.5, seconds=11.0), number=1)
    slow = trial(epoch(0.25, seconds=21.0), number=2)  # 4 / 21 images a second against 2 / 11
    assert together(alone, two, slow) == 2
    assert together(alone, trial(epoch(0.5, seconds=19.0), number=1)) == 1
    assert together(alone, trial(epoch(0.5, seconds=18.0), number=1)) == 4


def test_what_frozen_layers_took_once_is_no_slowness():
    alone = trial(epoch(1.0, seconds=60.0, **{"usage/prefix_seconds": 50.0}))
    beside = trial(epoch(0.5, seconds=70.0, **{"usage/prefix_seconds": 10.0, "usage/waiting_seconds": 49.0}), number=1)
    assert together(alone, beside) == 4
    assert together(alone, trial(epoch(0.5, seconds=70.0), number=1)) == 1


def test_where_one_ran_out_of_memory_fewer_share_the_next():
    alone, two = trial(epoch(1.0, seconds=10.0)), trial(epoch(0.5, seconds=10.0, **{"usage/halvings": 1.0}), number=1)
    assert together(alone, two) == 1


def test_only_what_bytes_and_seconds_depend_on_tells_one_kind_from_another():
    measured = trial(epoch(1.0, seconds=10.0))
    assert together(measured, params=RESNET | {"optimizer.lr": 0.01, "loss.name": "focal", "train.ema": 0.99}) == 2
    for other in (
        {"freeze.depth": 0.25},
        {"model.name": "resnet50"},
        {"train.batch_size": 64},
        {"freeze.depth": ["stage4"]},
    ):
        assert together(measured, params=RESNET | other) == 1


def test_shares_of_as_many_as_fit_are_never_more_than_a_gpu():
    for number in range(1, 65):
        share = Packed(together=number).share
        assert number * share <= 1.0
        assert round(1 / share) == number
