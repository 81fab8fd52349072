import random
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engine.halving import Halving
from search.engine.history import History
from search.engine.no_halving import NoHalving
from search.engine.rule import Close, Continue, Start
from search.ledger.trials import PROBE, EpochRecord, Trial

METRIC = "val/accuracy"
RUNGS = (1, 3, 9)
RECORDED = datetime(2024, 1, 1, tzinfo=UTC)
RULES = {
    "promote": Halving(metric=METRIC, mode="promote", min_epochs=1, max_epochs=9, reduction=3),
    "stop": Halving(metric=METRIC, mode="stop", min_epochs=1, max_epochs=9, reduction=3),
    "none": NoHalving(metric=METRIC, max_epochs=9),
}


def trial(number, values=(), state="RUNNING", target=1):
    """A trial whose epochs have these values; None is an epoch in which nothing was measured."""
    epochs = tuple(
        EpochRecord(number=epoch, metrics={} if value is None else {METRIC: value}, recorded=RECORDED)
        for epoch, value in enumerate(values, start=1)
    )
    return Trial(number=number, params={"n": number}, state=state, epochs=epochs, target=target, origin="random")


def answers(history, besides):
    """Everything a history can be asked."""
    rankings = [history.ranking(METRIC, rung=rung) for rung in RUNGS]
    return [
        list(history),
        (history.unfinished, history.underway, history.ending, history.failed),
        (history.num_complete, history.num_epochs, history.seconds()),
        [(ranking.num_reached, ranking.num_placed, ranking.worst(), list(ranking.placed())) for ranking in rankings],
        [[(ranking.place(n), ranking.value(n)) for n in range(len(history))] for ranking in rankings],
        [history.best_resting(METRIC, epoch=rung, besides=besides) for rung in RUNGS],
        history.last_resting_epoch(METRIC, besides=besides),
        [history.has_tried({"n": number}) for number in range(len(history) + 1)],
    ]


def changed(old, chance):
    """What may become of a trial."""
    match chance.choice(["epoch", "epoch", "aim", "end", "lose"]):
        case "epoch":
            value = chance.choice([None, nan, *(tenth / 10 for tenth in range(6))])
            metrics = {"usage/seconds": 0.1} if value is None else {METRIC: value, "usage/seconds": 0.1}
            ended = chance.choice([None, None, None, "no better"])
            epoch = EpochRecord(number=old.last_epoch + 1, metrics=metrics, recorded=RECORDED, ended=ended)
            return replace(old, epochs=(*old.epochs, epoch))
        case "aim":
            return replace(old, target=chance.choice(RUNGS))
        case "end":
            return replace(old, state=chance.choice(["COMPLETE", "PRUNED", "FAILED"]), reason="why")
    return replace(old, attempts=old.attempts + 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), num_changes=st.integers(1, 80))
def test_what_was_kept_through_all_changes_answers_as_what_is_made_anew(seed, num_changes):
    chance, kept, trials = random.Random(seed), History(), []
    for _ in range(num_changes):
        running = [number for number in range(len(trials)) if trials[number].state == "RUNNING"]
        if running and chance.random() < 0.8:
            number = chance.choice(running)
            trials[number] = changed(trials[number], chance)
        else:
            trials.append(trial(len(trials), target=chance.choice(RUNGS)))
        kept.update(trials)
        besides = frozenset(chance.sample(range(len(trials)), k=min(2, len(trials))))
        assert repr(answers(kept, besides)) == repr(answers(History(trials), besides))


def test_the_best_at_a_rung_come_first_the_older_of_equals_before_the_younger():
    trials = [trial(0, [0.2]), trial(1, [0.5]), trial(2, [0.9, 0.1, 0.1], target=3), trial(3, [0.5]), trial(4)]
    first = History(trials).ranking(METRIC, rung=1)
    assert list(first.placed()) == [2, 1, 3, 0]
    assert [first.place(number) for number in range(5)] == [3, 1, 0, 2, None]
    assert ([first.value(number) for number in range(5)], first.worst()) == ([0.2, 0.5, 0.9, 0.5, None], 0.2)
    assert list(History(trials).ranking(METRIC, rung=3).placed()) == [2]


def test_a_trial_without_a_number_has_reached_the_rung_and_has_no_place():
    ranking = History([trial(0, [nan]), trial(1, [None]), trial(2, [0.1])]).ranking(METRIC, rung=1)
    assert (ranking.num_reached, ranking.num_placed) == (3, 1)
    assert [ranking.place(number) for number in range(3)] == [None, None, 0]


def test_a_loss_is_best_where_it_is_least():
    epochs = [(EpochRecord(number=1, metrics={"val/loss": value}, recorded=RECORDED),) for value in (0.3, 0.1, 0.2)]
    trials = [replace(trial(number), epochs=epoch) for number, epoch in enumerate(epochs)]
    ranking = History(trials).ranking("val/loss", rung=1)
    assert list(ranking.placed()) == [1, 2, 0]
    assert (ranking.value(1), ranking.value(9), ranking.worst()) == (0.1, None, 0.3)


def test_values_are_known_as_tried_whatever_their_order_and_their_kind():
    values = {"freeze.depth": ["stage3", "stage4"], "optimizer.lr": 0.1, "model.head": None}
    history = History([replace(trial(0), params=values)])
    assert history.has_tried(dict(reversed(values.items())))
    assert not history.has_tried({**values, "optimizer.lr": 0.2})
    assert not history.has_tried({"optimizer.lr": 0.1})


@pytest.mark.parametrize("name", RULES)
def test_ten_times_the_trials_cost_a_decision_no_more_calls(name, calls_of):
    """Played until some wait at every rung, with one worker."""
    rule = RULES[name]
    histories = {size: played(rule, num_trials=size) for size in (100, 1000)}
    counts = {size: calls_of(partial(decide, rule, history)) for size, history in histories.items()}
    assert counts[1000] <= counts[100] + 20


def played(rule, *, num_trials):
    chance, history = random.Random(0), History()
    qualities = [chance.random() for _ in range(num_trials)]
    while True:
        match rule.next_action(history, running=frozenset(), budget="open"):
            case Start(until):
                number, state = len(history), "RUNNING"
                if number == num_trials:
                    return history
            case Continue(number, until):
                state = "RUNNING"
            case Close(number, _):
                until, state = history[number].last_epoch, "PRUNED"
        state = "COMPLETE" if until == 9 else state
        history.change(trial(number, [qualities[number]] * until, state=state, target=until))


def decide(rule, history):
    last = history[len(history) - 1]
    history.change(replace(last, attempts=1))
    rule.next_action(history, running=frozenset(), budget="open")


def test_a_trial_asked_again_for_its_best_value_looks_at_no_epoch():
    class Counted(dict):
        num_asked = 0

        def __getitem__(self, key):
            Counted.num_asked += 1
            return super().__getitem__(key)

    epochs = [EpochRecord(number=n, metrics=Counted({METRIC: n / 10}), recorded=RECORDED) for n in (1, 2, 3)]
    asked = replace(trial(0), epochs=tuple(epochs))
    assert [asked.best(METRIC, until=2), asked.best(METRIC), asked.best("val/loss")] == [0.2, 0.3, None]
    before = Counted.num_asked
    assert [asked.best(METRIC, until=2), asked.best(METRIC), asked.best("val/loss")] == [0.2, 0.3, None]
    assert Counted.num_asked == before
    assert replace(asked, epochs=asked.epochs[:1]).best(METRIC) == 0.1


def test_a_probe_that_is_not_measured_yet_is_trained_first():
    known = [trial(0, [0.3, 0.4, 0.5], "COMPLETE", 3), trial(1, [0.2], "PRUNED"), trial(2, [0.6])]
    probe = replace(trial(3, (), "RUNNING"), origin=PROBE)
    history = History([*known, probe])
    for rule in RULES.values():
        asked = {"running": frozenset(), "budget": "open"}
        assert rule.next_action(history, **asked) == Continue(3, probe.target)
        at_work = {"running": frozenset({3}), "budget": "open"}
        assert rule.next_action(history, **at_work) == rule.next_action(
            History(known), running=frozenset(), budget="open"
        )
    assert (history.num_searched, history.num_complete, history.num_pruned) == (3, 1, 1)


def test_a_probe_that_was_measured_beside_the_trials_is_not_seen():
    """Whatever is asked, the answer is as without it; only its seconds count, and its record is there."""
    known = [trial(0, [0.3, 0.4, 0.5], "COMPLETE", 3), trial(1, [0.2], "PRUNED"), trial(2, [0.6])]
    for state, values in (("COMPLETE", (0.9,)), ("FAILED", ())):
        probe = replace(trial(3, values, state), origin=PROBE)
        with_it, without = History([*known, probe]), History(known)
        assert answers(with_it, set())[1:3] == answers(without, set())[1:3]
        assert [list(with_it.ranking(METRIC, rung=rung).placed()) for rung in RUNGS] == [
            list(without.ranking(METRIC, rung=rung).placed()) for rung in RUNGS
        ]
        assert (with_it.num_searched, len(with_it)) == (3, 4)
        assert not with_it.has_tried({"n": 3})
        assert with_it.best_resting(METRIC, epoch=1, besides=()) == without.best_resting(METRIC, epoch=1, besides=())
        for rule in RULES.values():
            for budget in ("open", "trials spent"):
                asked = {"running": frozenset(), "budget": budget}
                assert rule.next_action(with_it, **asked) == rule.next_action(without, **asked)
