from datetime import UTC, datetime

from search.ledger.trials import EpochRecord, Trial
from search.report.pareto import front_figures, fronts
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"


def spec(*, metric=METRIC, **search):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 9, "metric": metric, **search},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "base": {"data.path": "images"},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def trial(number, value, seconds, *, metric=METRIC, state="COMPLETE", **measured):
    metrics = {metric: value} | ({} if seconds is None else {"usage/seconds": seconds})
    epochs = (EpochRecord(number=1, metrics=metrics, recorded=datetime(2026, 1, 1, tzinfo=UTC)),)
    return Trial(number=number, params={}, state=state, epochs=epochs, target=1, origin="", measured=measured)


def numbers(rows):
    return [row["trial"] for row in rows]


def test_the_front_has_whom_no_other_beats_in_both_the_cheapest_first():
    trials = [
        trial(0, 0.9, 60.0),
        trial(1, 0.5, 5.0),
        trial(2, 0.8, 20.0),
        trial(3, 0.7, 30.0),  # beaten by 2
        trial(4, 0.95, 1.0, state="FAILED"),
    ]
    front = fronts(trials, spec=spec())["seconds"]
    assert front == [
        {"trial": 1, "cost": 5.0, "value": 0.5},
        {"trial": 2, "cost": 20.0, "value": 0.8},
        {"trial": 0, "cost": 60.0, "value": 0.9},
    ]


def test_of_equals_the_one_that_costs_less_is_there_alone():
    trials = [trial(0, 0.9, 60.0), trial(1, 0.9, 50.0), trial(2, 0.9, 70.0), trial(3, 0.8, 50.0)]
    assert numbers(fronts(trials, spec=spec())["seconds"]) == [1]


def test_a_loss_is_better_where_it_is_lower():
    losses = {0: (0.2, 60.0), 1: (0.5, 5.0), 2: (0.6, 20.0)}
    trials = [trial(number, *pair, metric="val/loss") for number, pair in losses.items()]
    assert numbers(fronts(trials, spec=spec(metric="val/loss"))["seconds"]) == [1, 0]


def test_each_constrained_measure_has_a_front_of_its_own_of_the_trials_that_have_it():
    limits = {"model/parameters": 100, "usage/latency_ms": 9}
    sizes = {0: 80.0, 1: 10.0, 2: 50.0}
    trials = [trial(n, value, 1.0 + n, **{"model/parameters": sizes[n]}) for n, value in enumerate((0.9, 0.7, 0.6))]
    found = fronts([*trials, trial(3, 0.99, 0.5)], spec=spec(constraints=limits))
    assert numbers(found["model/parameters"]) == [1, 0]
    assert found["usage/latency_ms"] == []
    assert numbers(found["seconds"]) == [3]


def test_each_front_has_a_plot_with_all_trials_behind_it():
    trials = [trial(0, 0.9, 60.0), trial(1, 0.5, 5.0), trial(2, 0.4, 30.0)]
    (title, figure), *others = front_figures(trials, spec=spec(constraints={"model/parameters": 5})).items()
    assert (title, others) == (f"{METRIC} against seconds", [])
    behind, front = figure().data
    assert (list(behind.x), list(front.x)) == ([60.0, 5.0, 30.0], [5.0, 60.0])


def test_searches_without_seconds_have_no_front():
    assert fronts([trial(0, 0.9, None)], spec=spec()) == {"seconds": []}
