import math
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from search.engine.freeze_thaw import FreezeThaw
from search.engine.halving import Halving
from search.engine.history import History
from search.engine.rule import Close, Continue, Finish, Start, Wait
from search.ledger.trials import EpochRecord, Trial
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC, LOSS = "val/accuracy", "val/loss"
SPACE = make_space(
    {
        "freeze.depth": parse_dimension({"choice": [0.5, 0.75, 1.0]}, where="depth"),
        "optimizer.lr": parse_dimension({"log": [1e-4, 1e-1]}, where="lr"),
        "augment.strength": parse_dimension({"choice": ["none", "light"]}, where="strength"),
    }
)


def halving(metric):
    return Halving(metric=metric, mode="promote", min_epochs=1, max_epochs=9, reduction=3)


def rule(**changes):
    fields = {
        "outline": halving(METRIC),
        "startup": 4,
        "cost": "seconds",
        "seed": 0,
        "space": SPACE,
    }
    return FreezeThaw(**fields | changes)


def point(chance):
    return {
        "freeze.depth": chance.choice([0.5, 0.75, 1.0]),
        "optimizer.lr": 10 ** chance.uniform(-4, -1),
        "augment.strength": chance.choice(["none", "light"]),
    }


def reached(number, *, params, values, target=None, state="RUNNING", seconds=None):
    epochs = tuple(
        EpochRecord(
            number=index + 1,
            metrics={METRIC: value} | ({} if seconds is None else {"usage/seconds": seconds}),
            recorded=datetime.min.replace(tzinfo=UTC),
        )
        for index, value in enumerate(values)
    )
    return Trial(number=number, params=params, state=state, epochs=epochs, target=target or len(values), origin="")


def quality(params, epoch):
    """Best at a rate of 1e-2; grows with the epochs."""
    return 0.9 - 0.1 * abs(math.log10(params["optimizer.lr"]) + 2) - 0.2 / epoch


def some_trials(count, *, seed=0, epochs=1, state="RUNNING", seconds=lambda params: None):
    chance = random.Random(seed)
    trials = []
    for number in range(count):
        params = point(chance)
        values = [quality(params, epoch + 1) for epoch in range(epochs)]
        trials.append(reached(number, params=params, values=values, state=state, seconds=seconds(params)))
    return trials


def decisions(trials, *, count=40, **changes):
    """What it decides with the trials there are at many seeds: halving's turns and the model's."""
    return [rule(seed=seed, **changes).next_action(trials, running=frozenset(), budget="open") for seed in range(count)]


def test_rungs_lie_closer_than_halvings_and_hold_all_of_them():
    assert rule().rungs == (1, 2, 3, 4, 6, 9)
    assert set(rule().outline.rungs) <= set(rule().rungs)


def test_the_sampler_proposes_until_there_are_enough_results():
    assert rule().next_action(some_trials(3), running=frozenset(), budget="open") == Start(1)


def test_the_model_begins_whole_points_of_the_space_near_what_was_good():
    trials = some_trials(12, epochs=9, state="COMPLETE")
    begun = [action.params for action in decisions(trials) if isinstance(action, Start) and action.params]
    assert len(begun) > 20
    assert all(SPACE.contains(params) for params in begun)
    chance = random.Random(1)
    of_chance = [abs(math.log10(point(chance)["optimizer.lr"]) + 2) for _ in range(200)]
    of_model = [abs(math.log10(params["optimizer.lr"]) + 2) for params in begun]
    assert sum(of_model) / len(of_model) < sum(of_chance) / len(of_chance)


def test_the_model_goes_on_with_good_trials_to_the_next_rung():
    trials = some_trials(12)
    gone_on = [action for action in decisions(trials) if isinstance(action, Continue) and action.until == 2]
    assert gone_on
    ranked = sorted(trials, key=lambda trial: -trial.best(METRIC))
    places = [[trial.number for trial in ranked].index(action.number) for action in gone_on]
    assert sum(places) / len(places) < 3


def test_of_two_equal_promises_the_one_that_takes_fewer_seconds_is_kept():
    def seconds(params):
        return {0.5: 20.0, 0.75: 4.0, 1.0: 0.2}[params["freeze.depth"]]

    def depths(trials):
        begun = [action.params for action in decisions(trials) if isinstance(action, Start) and action.params]
        return sum(params["freeze.depth"] == 1.0 for params in begun) / max(1, len(begun))

    whole = {"epochs": 9, "state": "COMPLETE"}
    assert depths(some_trials(12, seconds=seconds, **whole)) > depths(some_trials(12, **whole)) + 0.2
    timed = some_trials(12, seconds=seconds, **whole)
    assert decisions(timed, cost="epochs") == decisions(some_trials(12, **whole))


def test_a_decision_depends_on_the_recorded_trials_alone():
    trials = some_trials(12)
    for seed in range(10):
        first = rule(seed=seed).next_action(trials, running=frozenset(), budget="open")
        history = History()
        for trial in trials:
            history.change(replace(trial, epochs=(), target=1))
        for trial in reversed(trials):
            history.change(trial)
        assert rule(seed=seed).next_action(history, running=frozenset(), budget="open") == first


def test_trials_that_failed_or_have_no_number_are_known_as_bad():
    trials = some_trials(8)
    broken = [
        replace(trials[0], number=8, state="FAILED", epochs=()),
        reached(9, params=point(random.Random(9)), values=[math.nan]),
    ]
    for action in decisions([*trials, *broken]):
        assert not isinstance(action, Continue) or action.number not in (8, 9)


def test_losses_are_known_by_their_order_alone_the_best_of_them_also_where_it_is_0():
    def losses(least):
        trials = some_trials(12, epochs=9, state="COMPLETE")
        ranked = sorted(trials, key=lambda trial: -trial.best(METRIC))
        values = {trial.number: least + place / 8 for place, trial in enumerate(ranked)}
        whole = [
            replace(trial, epochs=tuple(replace(epoch, metrics={LOSS: values[trial.number]}) for epoch in trial.epochs))
            for trial in trials
        ]
        return decisions(whole, outline=halving(LOSS))

    assert losses(0.0) == losses(0.5)


def test_what_a_trial_had_before_it_failed_counts_for_nothing():
    def begun(value):
        failed = reached(12, params=point(random.Random(12)), values=[value], target=9, state="FAILED")
        return decisions([*some_trials(12, epochs=9, state="COMPLETE"), failed])

    assert begun(0.99) == begun(0.01)


def test_where_nothing_varies_the_sampler_is_asked_and_resting_trials_go_on_as_in_halving():
    nothing = make_space({})
    trials = [reached(number, params={}, values=[0.5]) for number in range(3)]
    made = {
        rule(seed=seed, space=nothing, startup=1).next_action(trials, running=frozenset(), budget="open")
        for seed in range(10)
    }
    assert made <= {Start(1), Continue(0, 3)}


def test_a_point_that_was_tried_is_not_begun_again():
    trials = some_trials(12)
    for action in decisions(trials):
        if isinstance(action, Start) and action.params:
            assert not History(trials).has_tried(action.params)


def test_once_every_point_is_tried_and_trained_the_sampler_is_asked_which_finds_none():
    space = make_space({"augment.strength": parse_dimension({"choice": ["none", "light"]}, where="strength")})
    trials = [
        reached(number, params={"augment.strength": strength}, values=[0.5] * 9, state="COMPLETE")
        for number, strength in enumerate(("none", "light"))
    ]
    for seed in range(5):
        made = rule(seed=seed, space=space, startup=2)
        assert made.next_action(trials, running=frozenset(), budget="open") == Start(1)


def test_an_interrupted_trial_goes_on_before_all_else():
    trials = some_trials(6)
    trials[3] = replace(trials[3], target=4)
    assert rule().next_action(trials, running=frozenset(), budget="open") == Continue(3, 4)
    assert rule().next_action(trials, running=frozenset({3}), budget="open") != Continue(3, 4)


def test_halvings_turn_promotes_the_best_third_of_the_highest_rung():
    trials = some_trials(9)
    ranked = sorted(trials, key=lambda trial: -trial.best(METRIC))
    assert rule().next_action(trials, running=frozenset(), budget="trials spent") == Continue(ranked[0].number, 3)


def test_while_no_new_trial_can_begin_the_model_spends_what_is_left_on_those_that_rest():
    trials = some_trials(12)
    made = [rule(seed=seed).next_action(trials, running=frozenset(), budget="known trials") for seed in range(10)]
    assert all(isinstance(action, Continue) for action in made)
    ended = [reached(trial.number, params=trial.params, values=[0.5] * 9, state="COMPLETE") for trial in trials[1:]]
    last = rule().next_action([trials[0], *ended], running=frozenset(), budget="known trials")
    assert last == Continue(0, 2)  # which halving would not promote
    assert rule().next_action(trials[:1] + ended, running=frozenset({0}), budget="known trials") == Wait()


def test_without_compute_the_finalist_is_trained_to_the_end_and_the_rest_is_closed():
    trials = some_trials(5)
    best = max(trials, key=lambda trial: trial.best(METRIC))
    assert rule().next_action(trials, running=frozenset(), budget="compute spent") == Continue(best.number, 9)
    assert rule().next_action(trials, running=frozenset({best.number}), budget="compute spent") == Wait()
    trials[best.number] = reached(best.number, params=best.params, values=[0.9] * 9, state="COMPLETE")
    action = rule().next_action(trials, running=frozenset(), budget="compute spent")
    assert isinstance(action, Close)
    assert "epoch 1" in action.reason
    closed = [replace(trial, state="PRUNED") if trial.state == "RUNNING" else trial for trial in trials]
    assert rule().next_action(closed, running=frozenset(), budget="compute spent") == Finish()


@pytest.mark.parametrize("count", [170, 400])
def test_a_long_search_is_decided_by_its_latest_and_best_results(count):
    trials = some_trials(count, epochs=2)
    for action in decisions(trials, count=3):
        assert isinstance(action, Start | Continue)


def known(rate, confidence="high"):
    raw = {path: dimension.plain() for path, dimension in SPACE.dimensions.items()}
    raw["optimizer.lr"] |= {"prior": rate, "confidence": confidence}
    return make_space({path: parse_dimension(of_path, where=path) for path, of_path in raw.items()})


def mean_distance(trials, *, of, space=SPACE):
    """Of the rates that are begun, in powers of ten."""
    begun = [action.params for action in decisions(trials, space=space) if isinstance(action, Start) and action.params]
    assert all(space.contains(params) for params in begun)
    return sum(abs(math.log10(params["optimizer.lr"] / of)) for params in begun) / len(begun)


def test_what_is_begun_is_near_to_what_is_known_beforehand_while_there_are_few_results():
    trials = some_trials(5, epochs=9, state="COMPLETE")
    assert mean_distance(trials, of=1e-3, space=known(1e-3)) < 0.4 < mean_distance(trials, of=1e-3)


def test_a_wrong_prior_is_left_as_results_come():
    few, many = (some_trials(count, epochs=9, state="COMPLETE") for count in (5, 30))
    wrong = known(2e-4)
    assert mean_distance(few, of=1e-2, space=wrong) > 1.2
    assert mean_distance(many, of=1e-2, space=wrong) < 0.5
