"""What is kept of a budget for training the last candidates again, and whether it is enough."""

from datetime import UTC, datetime

import pytest

from search.engine.clock import FINISHING_SECONDS, Clock
from search.engine.confirming import Confirming, Left, shortage
from search.engine.history import History
from search.engine.limits import Limits
from search.ledger.trials import EpochRecord, Trial

TWO = Confirming(count=2, until=9, at_once=2)


def trial(number, *, epochs, seconds=10.0):
    metrics = {"val/accuracy": 0.5, "usage/seconds": seconds}
    records = tuple(
        EpochRecord(number=epoch + 1, metrics=metrics, recorded=datetime.min.replace(tzinfo=UTC))
        for epoch in range(epochs)
    )
    return Trial(number=number, params={}, state="RUNNING", epochs=records, target=epochs, origin="random")


def test_epochs_are_kept_for_every_candidate_unless_they_are_most_of_the_budget():
    assert TWO.epochs_kept(budget=40) == 18
    assert TWO.epochs_kept(budget=36) == 18
    assert TWO.epochs_kept(budget=35) == 0


def test_what_was_spent_on_it_before_counts_in_its_place():
    begun = Confirming(count=2, until=9, spent_epochs=12, spent_seconds=500.0)
    assert begun.epochs_kept(budget=40) == 18
    assert begun.epochs_kept(budget=20) == 12
    assert begun.work_seconds_kept([trial(0, epochs=1)], budget=1000.0) == 500.0


def test_seconds_are_forecast_by_the_trials_that_have_come_furthest_and_a_typical_one_for_what_is_missing():
    far, near = trial(0, epochs=9, seconds=20.0), trial(1, epochs=3, seconds=5.0)
    assert TWO.work_seconds_kept([far, near, trial(2, epochs=1)], budget=1e6) == 9 * 20 + 9 * 5
    assert TWO.work_seconds_kept([far], budget=1e6) == 2 * 9 * 20
    assert TWO.time_kept([far, near], budget=1e6) == 9 * 20  # both at once: as long as the longer
    assert Confirming(count=2, until=9).time_kept([far, near], budget=1e6) == 9 * 20 + 9 * 5
    assert TWO.time_kept([], budget=60.0) == 0


@pytest.mark.parametrize(("epochs", "is_spent"), [(21, False), (22, True)])
def test_a_search_leaves_the_epochs_that_are_kept(epochs, is_spent):
    limits = Limits(epochs=40, confirming=TWO)
    assert limits.is_compute_spent(History([trial(0, epochs=epochs)])) == is_spent
    assert not Limits(epochs=40).is_compute_spent(History([trial(0, epochs=epochs)]))


@pytest.mark.parametrize(("epochs", "is_spent"), [(21, False), (22, True)])
def test_a_search_leaves_the_gpu_hours_that_are_kept(epochs, is_spent):
    limits = Limits(gpu_hours=0.5 * 400 / 3600, gpus=0.5, confirming=TWO)
    assert limits.is_compute_spent(History([trial(0, epochs=epochs)])) == is_spent


def test_a_clock_leaves_the_time_that_is_kept():
    trials = [trial(0, epochs=9)]
    clock = Clock(asked_seconds=1000, spent_seconds=lambda: 100, num_evaluations=0)
    kept = Clock(
        asked_seconds=1000,
        spent_seconds=lambda: 100,
        num_evaluations=0,
        kept=lambda trials: TWO.time_kept(trials, budget=1000),
    )
    assert clock.left(trials) == 900 - FINISHING_SECONDS
    assert kept.left(trials) == 900 - FINISHING_SECONDS - 90


def test_refits_fit_where_every_bound_has_room_for_them():
    remaining = [(9, 10.0), (4, 20.0)]
    assert shortage(remaining, at_once=2, start=1.0, left=Left()) == ""
    assert shortage(remaining, at_once=2, start=1.0, left=Left(epochs=13, work_seconds=172, clock_seconds=91)) == ""


@pytest.mark.parametrize(
    ("left", "line"),
    [
        (Left(epochs=12), "it takes 13 epochs, search.budget leaves 12"),
        (Left(work_seconds=171), "it takes 172 seconds of work, search.budget leaves 171"),
        (Left(clock_seconds=90), "it takes 91 seconds by the clock, search.budget leaves 90"),
        (Left(clock_seconds=-5), "it takes 91 seconds by the clock, search.budget leaves 0"),
    ],
)
def test_what_a_bound_has_too_little_of_is_said(left, line):
    assert shortage([(9, 10.0), (4, 20.0), (0, 5.0)], at_once=2, start=1.0, left=left) == line
