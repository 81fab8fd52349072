"""How much of a budget is left, told from plain records."""

from dataclasses import replace
from datetime import UTC, datetime

from search.engine.confirming import Confirming
from search.engine.history import History
from search.engine.limits import Limits
from search.ledger.trials import EpochRecord, Trial

METRIC = "val/accuracy"


def history(*epochs):
    return History(
        Trial(
            number=number,
            params={"n": number},
            state="PRUNED",
            epochs=tuple(
                EpochRecord(number=epoch, metrics={METRIC: 0.5, "usage/seconds": 36.0}, recorded=datetime.now(UTC))
                for epoch in range(1, count + 1)
            ),
            target=count,
            origin="random",
        )
        for number, count in enumerate(epochs)
    )


def test_a_budget_allows_as_many_more_trials_as_those_so_far_took_on_average_the_nearest_bound_first():
    trials = history(1, 3)
    assert Limits(trials=10).trials_left(trials, at_once=1) == 8
    assert Limits(epochs=12).trials_left(trials, at_once=1) == 4
    assert Limits(trials=10, epochs=12).trials_left(trials, at_once=1) == 4
    assert Limits(trials=2).trials_left(trials, at_once=1) == 0
    assert Limits(gpu_hours=0.1).trials_left(trials, at_once=1) == 3


def test_epochs_that_shared_a_gpu_by_measurement_take_their_share_of_the_hours():
    (alone,) = history(4)
    shared = replace(
        alone,
        epochs=tuple(replace(epoch, metrics={**epoch.metrics, "usage/gpu_share": 0.25}) for epoch in alone.epochs),
    )
    assert History([shared]).seconds() == History([alone]).seconds()
    budget = Limits(gpu_hours=alone.seconds / 3600)
    assert budget.is_compute_spent(History([alone]))
    assert not budget.is_compute_spent(History([shared]))
    assert budget.trials_left(History([shared]), at_once=1) == 3
    kept = Limits(gpu_hours=alone.seconds / 3600, confirming=Confirming(count=1, until=4))  # as long as the trial was
    assert kept.trials_left(History([shared]), at_once=1) == 2


def test_compute_is_spent_with_the_last_epoch_or_hour_that_was_allowed():
    trials = history(1, 3)
    assert Limits(epochs=4).is_compute_spent(trials)
    assert not Limits(epochs=5).is_compute_spent(trials)
    assert Limits(gpu_hours=0.04).is_compute_spent(trials)
    assert not Limits(gpu_hours=0.05).is_compute_spent(trials)
    assert not Limits(trials=2).is_compute_spent(trials)
