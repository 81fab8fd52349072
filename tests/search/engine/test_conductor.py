"""A search played out by hand over a real ledger: no worker, no Ray, reports as a worker would send them."""

import random
import shutil
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest

from search.engine.conductor import Conductor, Leg
from search.engine.failure import LONGEST_DETAILS, Failure
from search.engine.freeze_thaw import FreezeThaw
from search.engine.halving import Halving
from search.engine.limits import Limits
from search.engine.reports import Ended, EpochReport, Infeasible, Measured, StopSearch
from search.engine.sampling import SAMPLERS, Sampling
from search.ledger import ledger as ledgers
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC = "val/accuracy"
OWN = Failure(reason="ValueError: broken", of_machine=False)
LOST = Failure(reason="the worker was lost", of_machine=True)
FULL = Failure(reason="RuntimeError: no space on device", of_machine=False)
SPACE = make_space({"optimizer.lr": parse_dimension({"log": [1e-5, 1e-1]}, where="lr")})


@pytest.fixture
def conduct(tmp_path):
    """Opens the search in ``tmp_path`` as a new driver would."""

    def open_(mode="promote", trials=4, space=SPACE, sampler="tpe", folder=tmp_path, **limits):
        ledger = ledgers.create(folder, name="s", storage=None, space=space, metric=METRIC, notes={"metric": METRIC})
        return Conductor(
            ledger,
            space=space,
            rule=Halving(metric=METRIC, mode=mode, min_epochs=1, max_epochs=4, reduction=2),
            sampling=Sampling(sampler=sampler, seed=0, random_share=0.2, metric=METRIC, rungs=(1, 2, 4)),
            limits=Limits(trials=trials, **limits),
            on_change=lambda trial: None,
        )

    return open_


def score(leg, epoch):
    """A trial's value: the better the nearer its rate is to 0.01, a little better each epoch."""
    return 1 / (1 + abs(leg.params["optimizer.lr"] - 0.01)) + epoch / 1000


def epoch_result(leg, epoch, last=4):
    ended = "last epoch" if epoch == last else None
    metrics = {METRIC: score(leg, epoch), "usage/seconds": 10.0}
    return EpochReport(epoch, metrics, ended)


def work(conductor, leg):
    """Train a leg to where the conductor stops it."""
    for epoch in range(leg.start + 1, 5):
        if conductor.report(leg.number, report=epoch_result(leg, epoch)) == "stop":
            break
    else:
        conductor.report(leg.number, report=Ended("last epoch"))
    conductor.leg_over(leg.number)


def play(conductor):
    legs = []
    while (leg := conductor.next_leg()) is not None:
        legs.append((leg.number, leg.start, leg.until))
        work(conductor, leg)
    return legs


def dump(conductor):
    return [
        (t.number, t.params, t.state, t.values(METRIC), t.target, t.origin, t.reason) for t in conductor.ledger.trials()
    ]


@pytest.mark.parametrize("mode", ["promote", "stop"])
def test_a_search_ends_with_its_best_trained_in_full_and_the_rest_pruned_with_their_reasons(conduct, mode):
    conductor = conduct(mode)
    play(conductor)
    trials = conductor.ledger.trials()
    assert conductor.finished
    assert len(trials) == 4
    assert {t.state for t in trials} == {"COMPLETE", "PRUNED"}
    assert all(t.last_epoch == 4 for t in trials if t.state == "COMPLETE")
    assert all(t.last_epoch in (1, 2) for t in trials if t.state == "PRUNED")
    assert all(t.reason == f"not among the best 1/2 at epoch {t.last_epoch}" for t in trials if t.state == "PRUNED")
    best = max(trials, key=lambda t: -abs(t.params["optimizer.lr"] - 0.01))
    assert best.last_epoch == 4


@pytest.mark.parametrize("mode", ["promote", "stop"])
@pytest.mark.parametrize("calls", range(1, 9))
def test_a_driver_lost_after_any_number_of_calls_changes_nothing(conduct, tmp_path, mode, calls):
    """Every call of the conductor is a moment to die; a new one over the same ledger goes on."""
    straight = conduct(mode)
    play(straight)
    expected = dump(straight)
    (tmp_path / ledgers.JOURNAL).unlink()
    left = calls
    conductor = conduct(mode)
    lost = False
    while (leg := conductor.next_leg()) is not None:
        for epoch in range(leg.start + 1, 6):
            left -= 1
            if left == 0:
                conductor, lost = conduct(mode), True
                break
            result = epoch_result(leg, epoch) if epoch < 5 else Ended("last epoch")
            if conductor.report(leg.number, report=result) == "stop":
                conductor.leg_over(leg.number)
                break
    assert lost
    assert dump(conductor) == expected


@pytest.mark.parametrize("mode", ["promote", "stop"])
@pytest.mark.parametrize(("sampler", "trials"), [("random", 25), ("tpe", 25), ("gp", 8)])
def test_a_driver_at_work_for_long_decides_as_one_that_has_just_opened_the_ledger(
    conduct, tmp_path, mode, sampler, trials
):
    """Three workers, whose trials report in any order, wait, go on, diverge, end early or lose their workers."""
    assert set(SAMPLERS) == {"random", "tpe", "gp"}
    chance, numbers, legs = random.Random(1), count(), []
    conductor = conduct(mode, trials=trials, sampler=sampler, max_failures=1)
    while not conductor.finished:
        copy = tmp_path / str(next(numbers))
        copy.mkdir()
        shutil.copy(tmp_path / ledgers.JOURNAL, copy)
        another = conduct(mode, trials=trials, sampler=sampler, folder=copy, max_failures=1)
        another.running = dict(conductor.running)
        leg = conductor.next_leg() if len(conductor.running) < 3 else None
        if len(conductor.running) < 3 or leg is not None:
            assert another.next_leg() == leg
            assert dump(another) == dump(conductor)
        legs += [leg] if leg else []
        if conductor.running and (leg is None or len(conductor.running) == 3):
            befall(conductor, chance.choice(list(conductor.running.values())), chance)
    states = Counter(trial.state for trial in conductor.ledger.trials())
    assert set(states) == {"COMPLETE", "PRUNED", "FAILED"}
    assert any(leg.start for leg in legs)


def befall(conductor, leg, chance):
    """One event at a worker."""
    epoch = conductor.ledger.trial(leg.number).last_epoch + 1
    match chance.choices(["epoch", "diverge", "lose"], weights=[8, 1, 1])[0]:
        case "diverge":
            stops = conductor.report(leg.number, report=Infeasible("diverged")) == "stop"
        case "lose":
            conductor.leg_over(leg.number, failure=LOST)
            return
        case _:
            ended = "last epoch" if epoch == 4 else "no better" if chance.random() < 0.1 else None
            report = EpochReport(epoch, {METRIC: score(leg, epoch) + chance.random() / 10}, ended)
            stops = conductor.report(leg.number, report=report) == "stop"
    if stops:
        conductor.leg_over(leg.number)


def test_a_driver_lost_between_a_trials_last_epoch_and_its_end_changes_nothing(conduct):
    """Early stopping at a rung: recorded, but not yet told as complete, it must not look like a trial that waits."""
    conductor = conduct()
    leg = conductor.next_leg()
    conductor.ledger.record(leg.number, epoch=1, metrics={METRIC: 0.9}, ended="no better for 3 epochs")
    again = conduct()
    assert again.next_leg().number == 1
    trial = again.ledger.trial(0)
    assert (trial.state, trial.reason, trial.last_epoch) == ("COMPLETE", "no better for 3 epochs", 1)


def test_an_exhausted_space_ends_the_search_and_says_so(conduct):
    space = make_space({"freeze.depth": parse_dimension({"choice": [0, 0.5, 1.0]}, where="depth")})
    conductor = conduct(trials=10, space=space)
    while (leg := conductor.next_leg()) is not None:
        for epoch in range(leg.start + 1, 5):
            metrics = {METRIC: 0.5 + leg.params["freeze.depth"] / 10}
            ended = "last epoch" if epoch == 4 else None
            result = EpochReport(epoch, metrics, ended)
            if conductor.report(leg.number, report=result) == "stop":
                break
        conductor.leg_over(leg.number)
    assert len(conductor.ledger.trials()) == 3
    assert conductor.exhausted
    assert conductor.finished
    assert conduct(trials=10, space=space).exhausted  # as the next process knows from the ledger


def test_two_workers_never_get_the_same_trial(conduct):
    conductor = conduct(trials=6)
    first, second = conductor.next_leg(), conductor.next_leg()
    assert {first.number, second.number} == {0, 1}
    work(conductor, first)
    third = conductor.next_leg()
    assert third.number not in (second.number,)
    assert isinstance(third, Leg)


def test_a_lost_worker_is_replaced_from_the_last_epoch_and_a_trial_that_loses_too_many_fails(conduct):
    conductor = conduct(max_failures=2)
    leg = conductor.next_leg()
    conductor.report(leg.number, report=epoch_result(leg, 1))
    conductor.ledger.aim(leg.number, target=2)
    for attempt in range(2):
        conductor.leg_over(leg.number, failure=OWN)
        again = conductor.next_leg()
        assert (again.number, again.start, again.until) == (0, 1, 2)
        assert conductor.ledger.trial(0).attempts == attempt + 1
    conductor.leg_over(0, failure=OWN)
    failed = conductor.ledger.trial(0)
    assert (failed.state, failed.reason) == ("FAILED", "failed 3 times: ValueError: broken")


def test_the_loss_of_a_worker_does_not_count_against_the_trial_up_to_a_limit(conduct):
    conductor = conduct(max_failures=0, max_losses=2)
    leg = conductor.next_leg()
    conductor.report(leg.number, report=epoch_result(leg, 1))
    conductor.ledger.aim(leg.number, target=2)
    for loss in range(2):
        conductor.leg_over(leg.number, failure=LOST)
        again = conductor.next_leg()
        assert (again.number, again.start, again.until) == (0, 1, 2)
        assert (conductor.ledger.trial(0).attempts, conductor.ledger.trial(0).losses) == (0, loss + 1)
    conductor.leg_over(0, failure=LOST)
    failed = conduct().ledger.trial(0)
    assert (failed.state, failed.reason) == ("FAILED", "failed 3 times: the worker was lost")
    assert failed.failure == {"reason": "the worker was lost", "of_machine": True, "details": "", "epoch": 2}


def test_of_an_error_the_end_of_its_traceback_is_kept(conduct):
    conductor = conduct()
    details = "a" * LONGEST_DETAILS + "ValueError: broken"
    leg = conductor.next_leg()
    conductor.leg_over(leg.number, failure=replace(OWN, details=details))
    kept = conduct().ledger.trial(leg.number).failure
    assert (kept["reason"], kept["epoch"], kept["of_machine"]) == ("ValueError: broken", 1, False)
    assert kept["details"] == details[-LONGEST_DETAILS:]


def test_trials_that_fail_alike_one_after_the_other_stop_the_search_with_the_diagnosis(conduct):
    conductor = conduct(max_failures=0)
    first = conductor.next_leg()
    conductor.report(first.number, report=epoch_result(first, 1))  # something has trained
    conductor.leg_over(first.number)
    for _ in range(3):
        assert conductor.stopping is None
        conductor.leg_over(conductor.next_leg().number, failure=OWN)
    assert conductor.stopping == "trials 1, 2, 3 failed alike, one after the other: ValueError: broken"
    assert conductor.next_leg() is None


@pytest.mark.parametrize("second", ["another error", "a lost worker"])
def test_trials_that_fail_otherwise_do_not(conduct, second):
    other = replace(OWN, reason="KeyError: 'a'") if second == "another error" else LOST
    conductor = conduct(max_failures=0, max_losses=0)
    first = conductor.next_leg()
    conductor.report(first.number, report=epoch_result(first, 1))
    conductor.leg_over(first.number)
    for failure in (OWN, other, OWN):
        conductor.leg_over(conductor.next_leg().number, failure=failure)
    assert conductor.stopping is None


def test_when_nothing_ever_trains_the_search_stops_and_says_why(conduct):
    conductor = conduct(max_failures=5)
    for _ in range(3):
        conductor.leg_over(conductor.next_leg().number, failure=FULL)
    assert conductor.stopping == "every trial fails: RuntimeError: no space on device"
    assert conductor.next_leg() is None


def test_a_diverged_trial_is_failed_at_once_and_the_search_goes_on(conduct):
    conductor = conduct()
    leg = conductor.next_leg()
    assert conductor.report(leg.number, report=Infeasible("diverged: nan")) == "stop"
    conductor.leg_over(leg.number)
    play(conductor)
    states = [t.state for t in conductor.ledger.trials()]
    assert states[0] == "FAILED"
    assert "COMPLETE" in states[1:]


def test_a_reason_to_stop_keeps_the_trial_open(conduct):
    conductor = conduct()
    leg = conductor.next_leg()
    assert conductor.report(leg.number, report=StopSearch("the disk is full")) == "stop"
    conductor.leg_over(leg.number)
    assert conductor.next_leg() is None
    assert conductor.ledger.trial(0).state == "RUNNING"
    again = conduct()
    assert again.next_leg() == leg


def test_the_epoch_budget_ends_the_search_with_one_trial_trained_in_full(conduct):
    conductor = conduct(trials=50, epochs=5)
    play(conductor)
    trials = conductor.ledger.trials()
    assert sum(t.last_epoch for t in trials) <= 5 + 3
    assert [t.state for t in trials].count("COMPLETE") == 1


def test_the_gpu_hours_are_counted_by_a_trials_share(conduct):
    conductor = conduct(trials=50, gpu_hours=4 * 10 * 0.5 / 3600, gpus=0.5)
    play(conductor)
    assert len(conductor.ledger.trials()) <= 4
    assert any(t.state == "COMPLETE" for t in conductor.ledger.trials())


def test_a_finished_search_goes_on_with_more_trials(conduct):
    first = conduct(trials=4)
    play(first)
    before = dump(first)
    second = conduct(trials=6)
    play(second)
    assert dump(second)[:4] == before
    assert len(dump(second)) == 6


def fail_all(conductor, *, workers=1, most=60):
    """Every trial is infeasible; how many were begun by so many workers."""
    begun, at_work = 0, []
    while begun < most:
        while len(at_work) < workers and (leg := conductor.next_leg()) is not None:
            at_work.append(leg.number)
            begun += 1
        if not at_work:
            break
        number = at_work.pop(0)
        conductor.report(number, report=Infeasible("diverged: loss is nan"))
        conductor.leg_over(number)
    return begun


@pytest.mark.parametrize("workers", [1, 4])
def test_a_search_that_nothing_counts_the_trials_of_ends_when_all_of_them_fail_at_once(conduct, workers):
    conductor = conduct(trials=None, epochs=100)
    assert fail_all(conductor, workers=workers) == 19 + workers
    assert conductor.finished
    assert conductor.stopping is None


def test_when_all_later_trials_fail_at_once_the_best_of_the_first_are_trained_to_the_end(conduct):
    conductor = conduct(trials=None, epochs=100)
    for _ in range(3):
        work(conductor, conductor.next_leg())
    legs = []
    while (leg := conductor.next_leg()) is not None:
        legs.append(leg)
        if leg.number < 3:
            work(conductor, leg)
        else:
            conductor.report(leg.number, report=Infeasible("diverged: loss is nan"))
            conductor.leg_over(leg.number)
    states = Counter(trial.state for trial in conductor.ledger.trials())
    assert conductor.finished
    assert states["FAILED"] == 20
    assert states["COMPLETE"] >= 1


def test_a_search_with_a_number_of_trials_tries_them_all_though_they_fail(conduct):
    conductor = conduct(trials=30)
    assert fail_all(conductor) == 30
    assert conductor.finished


def freeze_thaw_search(folder, *, space, fresh):
    ledger = ledgers.create(folder, name="s", storage=None, space=space, metric=METRIC, notes={"metric": METRIC})
    return Conductor(
        ledger,
        space=space,
        rule=FreezeThaw(
            outline=Halving(metric=METRIC, mode="promote", min_epochs=1, max_epochs=4, reduction=2),
            startup=1,
            cost="epochs",
            seed=0,
            space=space,
        ),
        sampling=Sampling(
            sampler="tpe",
            seed=0,
            random_share=0.2,
            metric=METRIC,
            rungs=(1, 2, 3, 4),
            fresh=fresh,
            try_first=({"optimizer.lr": 1e-2},),
        ),
        limits=Limits(trials=12),
        on_change=lambda trial: None,
    )


def test_a_rule_that_has_values_of_its_own_leaves_the_fresh_ones_to_chance(tmp_path):
    conductor = freeze_thaw_search(tmp_path, space=SPACE, fresh=5)
    play(conductor)
    assert conductor.finished
    origins = [trial.origin for trial in conductor.ledger.trials()]
    assert origins[:6] == ["try_first"] + ["random"] * 5
    assert "freeze_thaw" in origins[6:]


def test_a_rule_that_has_values_of_its_own_leaves_the_centre_of_the_priors_to_the_sampler(tmp_path):
    known = make_space({"optimizer.lr": parse_dimension({"log": [1e-5, 1e-1], "prior": 1e-3}, where="lr")})
    conductor = freeze_thaw_search(tmp_path, space=known, fresh=0)
    play(conductor)
    first, second, *later = conductor.ledger.trials()
    assert (first.origin, second.origin, second.params) == ("try_first", "prior", {"optimizer.lr": 1e-3})
    assert "freeze_thaw" in {trial.origin for trial in later}


LIMITS = {"model/parameters": 5e6, "usage/latency_ms": 20}


def test_a_network_that_takes_more_than_is_allowed_is_not_trained_and_says_why(conduct):
    conductor = conduct(constraints=LIMITS)
    leg = conductor.next_leg()
    assert leg.measure == tuple(LIMITS)
    values = {"model/parameters": 11_181_642.0, "usage/latency_ms": 20.5}
    assert conductor.report(leg.number, report=Measured(values)) == "stop"
    conductor.leg_over(leg.number)
    (trial,) = conductor.ledger.trials()
    assert (trial.state, trial.epochs, dict(trial.measured)) == ("FAILED", (), values)
    assert trial.reason == (
        "search.constraints: model/parameters 1.11816e+07 is above 5e+06; usage/latency_ms 20.5 is above 20"
    )
    play(conductor)
    assert conductor.finished


def test_a_network_that_takes_as_much_as_is_allowed_trains_and_keeps_what_was_measured(conduct, tmp_path):
    conductor = conduct(constraints=LIMITS)
    leg = conductor.next_leg()
    values = {"model/parameters": 5e6, "usage/latency_ms": 20.0}
    assert conductor.report(leg.number, report=Measured(values)) == "go on"
    assert conductor.report(leg.number, report=epoch_result(leg, 1)) == "stop"  # at its rung
    conductor.leg_over(leg.number)
    reopened = conduct(constraints=LIMITS).ledger.trial(0)
    assert (dict(reopened.measured), reopened.last_epoch) == (values, 1)


def test_a_network_is_measured_once_even_where_its_worker_was_lost_before_an_epoch(conduct):
    conductor = conduct(constraints=LIMITS)
    leg = conductor.next_leg()
    conductor.leg_over(leg.number, failure=LOST)
    again = conductor.next_leg()
    assert (again.number, again.measure) == (leg.number, tuple(LIMITS))
    conductor.report(again.number, report=Measured({"model/parameters": 1.0, "usage/latency_ms": 1.0}))
    conductor.leg_over(again.number, failure=LOST)
    last = conductor.next_leg()
    assert (last.number, last.measure) == (leg.number, ())


def test_without_constraints_nothing_is_measured(conduct):
    assert conduct().next_leg().measure == ()
