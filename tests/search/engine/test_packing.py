"""How many trials share a GPU, on made-up tables of what was measured."""

from datetime import UTC, datetime

import pytest

from search.engine.packing import Packed, kind_text, packed
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


def epochs(share, *, seconds, count=None, number=0, **more):
    """A trial of as many epochs as share a GPU then, or ``count``."""
    return trial(*[epoch(share, seconds=seconds, **more)] * (count or round(1 / share)), number=number)


def together(*trials, params=RESNET, most=16):
    return packed(trials, params=params, most=most).together


def test_the_first_of_a_kind_has_a_gpu_alone():
    assert packed([], params=RESNET, most=16) == Packed(together=1)
    assert packed([], params=RESNET, most=16).share == 1.0
    assert together(trial({"usage/seconds": 10.0})) == 1  # as one on a CPU, or begun before this was measured


def test_then_as_many_as_bytes_allow_are_tried_twice_as_many_at_a_time():
    measured = [epochs(1.0, seconds=10.0)]
    assert packed(measured, params=RESNET, most=16) == Packed(together=2, num_bytes=9 * GB)
    measured.append(epochs(0.5, seconds=11.0, gigabytes=18.0, number=1, count=1))
    assert together(*measured) == 2  # one epoch beside another does not tell yet
    measured.append(epochs(0.5, seconds=11.0, gigabytes=18.0, number=2, count=1))
    assert together(*measured) == 4
    measured.append(epochs(0.25, seconds=14.0, gigabytes=36.0, number=3))
    assert together(*measured) == 8  # 8 x 9 GB are 72, of which 73.6 may be taken
    assert together(*measured, most=5) == 5  # CPUs for no more


@pytest.mark.parametrize(("gigabytes", "expected"), [(9.0, 2), (36.8, 2), (36.9, 1), (79.0, 1), (90.0, 1)])
def test_what_does_not_fit_beside_another_stays_alone(gigabytes, expected):
    assert together(trial(epoch(1.0, seconds=10.0, gigabytes=gigabytes))) == expected


def test_of_gpus_that_differ_the_smallest_counts():
    assert together(trial(epoch(1.0, seconds=9.0, total=80.0), epoch(1.0, seconds=9.0, total=16.0))) == 1


def test_more_are_not_put_together_than_are_faster_together():
    alone, two = epochs(1.0, seconds=10.0), epochs(0.5, seconds=11.0)
    assert together(alone, two, epochs(0.25, seconds=21.0)) == 2  # 4 / 21 images a second against 2 / 11
    assert together(alone, epochs(0.5, seconds=19.0)) == 1
    assert together(alone, epochs(0.5, seconds=18.0)) == 4


def test_what_frozen_layers_took_once_is_no_slowness():
    alone = trial(epoch(1.0, seconds=60.0, **{"usage/prefix_seconds": 50.0}))
    beside = epochs(0.5, seconds=70.0, **{"usage/prefix_seconds": 10.0, "usage/waiting_seconds": 49.0})
    assert together(alone, beside) == 4
    assert together(alone, epochs(0.5, seconds=70.0)) == 1


def test_nor_is_the_start_of_a_leg():
    start = {"usage/start_seconds": 3.0}
    alone = trial(epoch(1.0, seconds=30.0, **start), epoch(1.0, seconds=10.0))
    assert together(alone, epochs(0.5, seconds=19.0)) == 1
    assert together(trial(epoch(1.0, seconds=30.0, **start)), epochs(0.5, seconds=19.0)) == 4  # nothing else is known


@pytest.mark.parametrize("what", ["usage/halvings", "usage/over_share"])
def test_where_one_ran_out_of_memory_fewer_share_the_next(what):
    assert together(epochs(1.0, seconds=10.0), epochs(0.5, seconds=10.0, count=1, **{what: 1.0})) == 1


def test_only_what_bytes_and_seconds_depend_on_tells_one_kind_from_another():
    measured = epochs(1.0, seconds=10.0)
    assert together(measured, params=RESNET | {"optimizer.lr": 0.01, "loss.name": "focal"}) == 2
    others = ({"model.name": "resnet50"}, {"train.batch_size": 64}, {"augment.mixup": 0.2}, {"train.ema": 0.99})
    for other in (*others, {"freeze.depth": 0.25}, {"freeze.depth": ["stage4"]}):
        assert together(measured, params=RESNET | other) == 1
    mixed = trial(epoch(1.0, seconds=10.0), params=RESNET | {"augment.mixup": 0.2})
    assert together(mixed, params=RESNET | {"augment.mixup": 0.4}) == 2
    assert together(mixed, params=RESNET | {"augment.mixup": 0.0}) == 1


def test_a_kind_is_told_by_what_makes_it_one():
    assert kind_text(RESNET) == "freeze.depth 0.5, model.name 'resnet18'"
    assert kind_text({"optimizer.lr": 0.1}) == ""


def test_shares_of_as_many_as_fit_are_never_more_than_a_gpu():
    for number in range(1, 65):
        share = Packed(together=number).share
        assert number * share <= 1.0
        assert round(1 / share) == number
