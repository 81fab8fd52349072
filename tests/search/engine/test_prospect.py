"""What more trials are expected to bring: against what is known of made-up ones, and as the end of searches played out."""

import math
import random
from datetime import UTC, datetime

import numpy as np
import pytest

from search.engine.clock import FINISHING_SECONDS, Clock
from search.engine.conductor import Conductor
from search.engine.freeze_thaw import FreezeThaw
from search.engine.halving import Halving
from search.engine.history import History
from search.engine.limits import Limits
from search.engine.no_halving import NoHalving
from search.engine.prospect import LEAST_TRIALS, expected_gain
from search.engine.reports import EpochReport
from search.engine.sampling import Sampling
from search.ledger import ledger as ledgers
from search.ledger.trials import PROBE, EpochRecord, Trial
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC = "val/accuracy"
SPACE = make_space({"optimizer.lr": parse_dimension({"log": [1e-4, 1e-1]}, where="lr")})
LAST = 4


def trials_of(values, *, metric=METRIC, state="COMPLETE", origin="random"):
    moment = datetime.min.replace(tzinfo=UTC)
    return [
        Trial(
            number=number,
            params={"optimizer.lr": 0.01},
            state="FAILED" if value is None else state,
            epochs=() if value is None else (EpochRecord(number=1, metrics={metric: value}, recorded=moment),),
            target=1,
            origin=origin,
        )
        for number, value in enumerate(values)
    ]


def uniform(count, *, seed):
    chance = random.Random(seed)
    return [0.5 + 0.2 * chance.random() for _ in range(count)]


def gain(values, *, more, **fields):
    return expected_gain(trials_of(values, **fields), metric=fields.get("metric", METRIC), num_trials=more)


def true_gain_of_uniform(best, *, more):
    """The integral of 1 - F(x)^m above the best, of values from 0.5 to 0.7."""
    share = (best - 0.5) / 0.2
    return 0.2 * ((1 - share) - (1 - share ** (more + 1)) / (more + 1))


@pytest.mark.parametrize("more", [10, 50])
def test_of_values_from_one_distribution_more_is_expected_than_they_bring_but_a_small_part_of_their_range(more):
    """On the safe side: a search ends too late rather than too early."""
    estimates, truths = [], []
    for seed in range(40):
        values = uniform(80, seed=seed)
        values[3] = 0.69  # the record is in the first half, or little above it
        estimates.append(gain(values, more=more))
        truths.append(true_gain_of_uniform(max(values), more=more))
    assert np.mean(truths) < np.mean(estimates) < 0.2 / 20


def test_a_plateau_promises_little_and_the_less_the_fewer_trials_are_left():
    plateau = [0.5 + 0.4 * min(1, number / 10) - 0.02 * random.Random(number).random() for number in range(60)]
    assert 0 < gain(plateau, more=5) < gain(plateau, more=50) < 0.01
    assert gain(plateau, more=0) == 0


def test_a_rising_front_promises_at_least_that_it_rises_on():
    rising = [number / 100 for number in range(60)]
    assert gain(rising, more=20) > 0.1
    assert gain(rising, more=1) > 0.005


def test_a_loss_falls_as_an_accuracy_rises():
    values = uniform(50, seed=3)
    losses = [-value for value in values]
    assert gain(losses, more=20, metric="val/loss") == gain(values, more=20)


def test_equal_values_promise_nothing():
    assert gain([0.5] * 40, more=20) == 0


def test_trials_that_fail_take_part_of_what_is_left():
    values = uniform(40, seed=5)
    values[0] = 0.6999  # the record in the first half
    half_failing = [value for pair in zip(values, [None] * 40, strict=True) for value in pair]
    assert gain(half_failing, more=20) < gain(values, more=20)


def test_before_enough_is_known_nothing_is_expected():
    assert gain(uniform(LEAST_TRIALS - 1, seed=0), more=20) is None
    assert gain(uniform(40, seed=0), more=20, state="RUNNING") is None  # none was trained to the end
    assert gain([None] * 40, more=20) is None


def test_a_probe_is_no_trial_of_the_search():
    values = uniform(40, seed=7)
    probe = trials_of([0.99], origin=PROBE)
    with_probe = expected_gain([*trials_of(values), *probe], metric=METRIC, num_trials=9)
    assert with_probe == gain(values, more=9)


def curve(params, epoch):
    """Best at a rate of 1e-2, flat around it; grows with the epochs."""
    return 0.9 - 0.002 * abs(math.log10(params["optimizer.lr"]) + 2) - 0.05 / epoch


def rising_curve(params, number, epoch):
    return 0.1 + number / 200 + epoch / 1000


HALVING = Halving(metric=METRIC, mode="promote", min_epochs=1, max_epochs=LAST, reduction=2)
RULES = {
    "none": NoHalving(METRIC, LAST),
    "promote": HALVING,
    "stop": Halving(metric=METRIC, mode="stop", min_epochs=1, max_epochs=LAST, reduction=2),
    "freeze_thaw": FreezeThaw(outline=HALVING, startup=4, cost="epochs", seed=0, space=SPACE),
}


def play(folder, *, rule, tolerance, value, trials=150, calls=None, **limits):
    """A search over the ledger in a folder, whose driver is lost after so many reports; its conductor."""
    conductor = Conductor(
        ledgers.create(folder, name="s", storage=None, space=SPACE, metric=METRIC, notes={"metric": METRIC}),
        space=SPACE,
        rule=RULES[rule],
        sampling=Sampling(sampler="random", seed=0, random_share=0.2, metric=METRIC, rungs=(1, 2, LAST)),
        limits=Limits(trials=trials, tolerance=tolerance, **limits),
        on_change=lambda trial: None,
    )
    done = 0
    while (leg := conductor.next_leg()) is not None:
        for epoch in range(leg.start + 1, LAST + 1):
            if done == calls:
                return conductor
            done += 1
            metrics = {METRIC: value(leg, epoch), "usage/seconds": 10.0}
            ended = "last epoch" if epoch == LAST else None
            if conductor.report(leg.number, report=EpochReport(epoch, metrics, ended)) == "stop":
                break
        conductor.leg_over(leg.number)
    return conductor


def on_a_plateau(leg, epoch):
    return curve(leg.params, epoch)


def on_a_front(leg, epoch):
    return rising_curve(leg.params, leg.number, epoch)


def dump(conductor):
    trials = conductor.ledger.trials()
    return [(t.number, t.params, t.state, t.reason, t.values(METRIC)) for t in trials], conductor.enough


@pytest.mark.parametrize("rule", ["none", "promote", "stop", "freeze_thaw"])
def test_a_search_on_a_plateau_ends_before_its_budget_with_every_trial_decided_and_says_why(tmp_path, rule):
    conductor = play(tmp_path, rule=rule, tolerance=0.01, value=on_a_plateau, trials=80)
    trials = conductor.ledger.trials()
    assert conductor.finished
    assert LEAST_TRIALS <= len(trials) < 80 or sum(trial.last_epoch for trial in trials) < 80
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    expected, tolerance = conductor.enough.split(", below search.tolerance ")
    assert 0 <= float(expected.removeprefix("the rest of the budget is expected to bring ")) < 0.01
    assert tolerance == "0.01"


@pytest.mark.parametrize("rule", ["none", "promote", "stop"])
def test_a_search_on_a_rising_front_spends_its_budget(tmp_path, rule):
    conductor = play(tmp_path, rule=rule, tolerance=0.002, value=on_a_front, trials=60)
    assert len(conductor.ledger.trials()) == 60
    assert conductor.enough is None


def test_without_a_tolerance_a_plateau_is_searched_to_the_end(tmp_path):
    assert len(play(tmp_path, rule="none", tolerance=None, value=on_a_plateau, trials=40).ledger.trials()) == 40


@pytest.mark.parametrize("calls", [1, 30, 60, 80, 84, 85])
def test_a_driver_lost_at_any_time_decides_as_an_unbroken_one(tmp_path, calls):
    settings = {"rule": "promote", "tolerance": 0.01, "value": on_a_plateau, "trials": 80}
    straight = play(tmp_path / "straight", **settings)
    play(tmp_path / "lost", calls=calls, **settings)
    assert dump(play(tmp_path / "lost", **settings)) == dump(straight)


def test_run_again_a_search_that_had_enough_begins_no_more_and_says_the_same(tmp_path):
    settings = {"rule": "promote", "tolerance": 0.01, "value": on_a_plateau, "trials": 80}
    first = play(tmp_path, **settings)
    assert dump(play(tmp_path, **settings)) == dump(first)
    assert len(play(tmp_path, **settings | {"tolerance": None}).ledger.trials()) == 80


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"trials": 20}, 10),
        ({"epochs": 60}, 5),
        ({"gpu_hours": 600 / 3600}, 5),
        ({"trials": 12, "epochs": 60}, 2),
        ({"epochs": 40}, 0),
    ],
)
def test_the_narrowest_bound_says_how_many_trials_are_left(tmp_path, limits, left):
    conductor = play(tmp_path, rule="none", tolerance=None, value=on_a_plateau, trials=10)
    history = History(conductor.ledger.trials())
    assert (history.num_searched, history.num_epochs, history.seconds()) == (10, 40, 400)
    assert Limits(**limits).trials_left(history, at_once=1) == left


def test_the_clock_bounds_them_too(tmp_path):
    history = History(play(tmp_path, rule="none", tolerance=None, value=on_a_plateau, trials=10).ledger.trials())
    clock = Clock(asked_seconds=100 + FINISHING_SECONDS, spent_seconds=lambda: 0.0, num_evaluations=0)
    assert Limits(clock=clock).trials_left(history, at_once=2) == 5
