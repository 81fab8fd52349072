"""What every scheduler keeps: whole searches played out, in any order of reports, cut off anywhere."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engine.audit import Audited
from search.engine.history import History
from search.engine.rule import Close, Continue, Finish, Hold, Start, Wait
from search.engine.schedulers import SCHEDULERS, scheduler_rule
from search.ledger.trials import EpochRecord, Trial
from search.space.sections import SchedulerSection
from search.space.spec import SearchSpec

METRIC = "val/accuracy"
MODES = [
    (name, mode, audit)
    for name in SCHEDULERS
    for mode in (("promote", "stop") if name == "asha" else ("promote",))
    for audit in (0.0, 0.5)
]
QUALITIES = st.lists(st.integers(0, 5).map(lambda tenth: tenth / 10), min_size=1, max_size=20)
SHAPES = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(0, 3), st.integers(1, 4))

every_scheduler = pytest.mark.parametrize(("name", "mode", "audit"), MODES)
every_audit = pytest.mark.parametrize(("name", "mode", "audit"), [mode for mode in MODES if mode[2]])


def make_rule(name, mode, shape, audit):
    low, reduction, levels, finalists = shape
    document = {
        "search": {"name": "played", "trials": 1, "metric": METRIC},
        "scheduler": {
            "name": name,
            "mode": mode,
            "min_epochs": low,
            "max_epochs": low * reduction**levels,
            "reduction": reduction,
            "finalists": finalists,
            "audit": audit,
        },
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
    }
    return scheduler_rule(SearchSpec.model_validate(document))


class Play:
    """A search whose trials have one value at every epoch; reports come in the order that ``choose`` says.

    ``choose`` takes how many trials are at work and gives the place of the one that reports its next epoch.
    """

    def __init__(self, rule, *, qualities, workers, choose, num_epochs=None, forget=lambda: False):
        self.rule, self.qualities, self.workers, self.choose = rule, qualities, workers, choose
        self.num_epochs, self.forget = num_epochs, forget
        self.trials: list[Trial] = []
        self.running: list[int] = []
        self.started_after_budget = 0

    def budget(self):
        epochs = sum(trial.last_epoch for trial in self.trials)
        if self.num_epochs is not None and epochs >= self.num_epochs:
            return "compute spent"
        if self.num_epochs is not None and isinstance(self.rule, Audited):
            kept = self.rule.epochs_kept(History(self.trials), budget=self.num_epochs)
            if epochs + kept >= self.num_epochs:
                return "kept for audits"
        if len(self.trials) < len(self.qualities):
            return "open"
        return "trials spent" if self.num_epochs is None else "known trials"

    def to_the_end(self):
        for _ in range(20_000):
            if self.forget():  # every process is killed; what is left is the record
                self.running = []
            if len(self.running) < self.workers and self.act() == Finish():
                return self
            if self.running and (len(self.running) == self.workers or self.waits):
                self.report(self.running[self.choose(len(self.running)) % len(self.running)])
        raise AssertionError("the search does not end")

    def act(self):
        budget = self.budget()
        action = self.rule.next_action(self.trials, running=frozenset(self.running), budget=budget)
        again = self.rule.next_action(tuple(self.trials), running=frozenset(self.running), budget=budget)
        assert action == again
        self.waits = isinstance(action, Wait)
        match action:
            case Start(until):
                assert budget == "open"
                self.running.append(len(self.trials))
                self.trials.append(
                    Trial(number=len(self.trials), params={}, state="RUNNING", epochs=(), target=until, origin="random")
                )
            case Continue(number, until):
                trial = self.trials[number]
                assert trial.state == "RUNNING"
                assert number not in self.running
                assert trial.last_epoch < until
                assert until in self.rule.rungs
                self.running.append(number)
                self.trials[number] = replace(trial, target=until)
            case Close(number, reason):
                assert reason
                assert number not in self.running
                assert self.trials[number].state == "RUNNING"
                self.trials[number] = replace(self.trials[number], state="PRUNED", reason=reason)
            case Hold(number):
                assert number not in self.running
                self.hold(number)
            case Wait():
                assert self.running, "it waits for nobody"
            case Finish():
                assert not self.running
        return action

    def hold(self, number):
        trial = self.trials[number]
        assert (trial.state, trial.audited_at) == ("RUNNING", None)
        self.trials[number] = replace(trial, audited_at=trial.last_epoch)

    def report(self, number):
        trial = self.trials[number]
        epoch = trial.last_epoch + 1
        record = EpochRecord(
            number=epoch, metrics={METRIC: self.qualities[number]}, recorded=datetime.min.replace(tzinfo=UTC)
        )
        self.trials[number] = trial = replace(trial, epochs=(*trial.epochs, record))
        if epoch < trial.target:
            return
        if epoch == self.rule.rungs[-1]:
            self.trials[number] = replace(trial, state="COMPLETE")
            self.running.remove(number)
            return
        match self.rule.verdict(self.trials, number=number):
            case Continue(same, until):
                assert same == number
                assert until > epoch
                self.trials[number] = replace(trial, target=until)
            case Close(_, reason):
                self.trials[number] = replace(trial, state="PRUNED", reason=reason)
                self.running.remove(number)
            case Hold(same):
                assert same == number
                self.hold(number)
                self.running.remove(number)
            case Wait():
                self.running.remove(number)


def test_the_space_file_offers_every_scheduler():
    assert set(get_args(SchedulerSection.model_fields["name"].annotation)) == set(SCHEDULERS)


@every_scheduler
@settings(max_examples=30, deadline=None)
@given(shape=SHAPES)
def test_rungs_ascend_to_the_end_of_training_and_are_what_the_section_says(name, mode, audit, shape):
    rule, (low, reduction, levels, _) = make_rule(name, mode, shape, audit), shape
    assert list(rule.rungs) == sorted(set(rule.rungs))
    assert rule.rungs[-1] == low * reduction**levels
    section = SchedulerSection(name=name, min_epochs=low, max_epochs=low * reduction**levels, reduction=reduction)
    assert rule.rungs == section.rungs
    assert len(rule.shares) == len(rule.rungs)
    assert rule.shares[0] == 1
    assert hash(rule) == hash(make_rule(name, mode, shape, audit))


@every_scheduler
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES, workers=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_a_search_ends_for_any_order_of_reports_with_every_trial_decided(
    name, mode, audit, qualities, shape, workers, seed
):
    rule, chance = make_rule(name, mode, shape, audit), random.Random(seed)
    played = Play(rule, qualities=qualities, workers=workers, choose=chance.randrange).to_the_end()
    assert len(played.trials) == len(qualities)
    assert {trial.state for trial in played.trials} <= {"COMPLETE", "PRUNED"}
    assert all(trial.last_epoch in rule.rungs for trial in played.trials)
    assert any(trial.state == "COMPLETE" for trial in played.trials)


@every_scheduler
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES, workers=st.integers(1, 3), share=st.floats(0, 1))
def test_once_the_compute_is_spent_no_trial_begins_and_the_search_still_ends(
    name, mode, audit, qualities, shape, workers, share
):
    rule = make_rule(name, mode, shape, audit)
    whole = Play(rule, qualities=qualities, workers=workers, choose=lambda _: 0).to_the_end()
    num_epochs = max(1, int(share * sum(trial.last_epoch for trial in whole.trials)))
    cut = Play(rule, qualities=qualities, workers=workers, choose=lambda _: 0, num_epochs=num_epochs).to_the_end()
    assert {trial.state for trial in cut.trials} <= {"COMPLETE", "PRUNED"}
    assert len(cut.trials) <= len(whole.trials)
    most = max(1, shape[3])  # finalists, which are owed
    assert sum(trial.last_epoch for trial in cut.trials) <= num_epochs + (most + workers) * rule.rungs[-1]


@every_scheduler
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES, seed=st.integers(0, 2**32))
def test_with_one_worker_a_search_killed_at_any_event_ends_as_the_unbroken_one(
    name, mode, audit, qualities, shape, seed
):
    rule, chance = make_rule(name, mode, shape, audit), random.Random(seed)
    whole = Play(rule, qualities=qualities, workers=1, choose=lambda _: 0).to_the_end()
    killed = Play(
        rule, qualities=qualities, workers=1, choose=lambda _: 0, forget=lambda: chance.random() < 0.5
    ).to_the_end()
    assert killed.trials == whole.trials


@every_scheduler
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES, workers=st.integers(2, 4), seed=st.integers(0, 2**32))
def test_with_several_workers_a_search_killed_at_any_event_loses_no_trial(
    name, mode, audit, qualities, shape, workers, seed
):
    rule, chance = make_rule(name, mode, shape, audit), random.Random(seed)
    killed = Play(
        rule,
        qualities=qualities,
        workers=workers,
        choose=chance.randrange,
        forget=lambda: chance.random() < 0.2,
    ).to_the_end()
    assert len(killed.trials) == len(qualities)
    assert {trial.state for trial in killed.trials} <= {"COMPLETE", "PRUNED"}


@every_scheduler
def test_an_enlarged_search_goes_on_from_where_it_ended(name, mode, audit):
    rule = make_rule(name, mode, (1, 2, 2, 1), audit)
    first = Play(rule, qualities=[0.1, 0.5, 0.3], workers=1, choose=lambda _: 0).to_the_end()
    more = Play(rule, qualities=[0.1, 0.5, 0.3, 0.9, 0.2], workers=1, choose=lambda _: 0)
    more.trials = list(first.trials)
    more.to_the_end()
    assert len(more.trials) == 5
    assert [trial.epochs for trial in more.trials[:3]] == [trial.epochs for trial in first.trials]


@every_audit
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES, workers=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_what_is_audited_is_trained_to_the_end_and_nothing_else_is(name, mode, audit, qualities, shape, workers, seed):
    rule, chance = make_rule(name, mode, shape, audit), random.Random(seed)
    played = Play(rule, qualities=qualities, workers=workers, choose=chance.randrange).to_the_end()
    end = rule.rungs[-1]
    for trial in played.trials:
        if trial.audited_at is not None:
            assert rule.draws(trial.number)
            assert (trial.state, trial.last_epoch) == ("COMPLETE", end)
            assert trial.audited_at < end
        elif trial.state == "PRUNED":
            assert not rule.draws(trial.number)


@every_audit
@settings(max_examples=20, deadline=None)
@given(qualities=QUALITIES, shape=SHAPES)
def test_with_audits_a_search_decides_as_without_them(name, mode, audit, qualities, shape):
    rule = make_rule(name, mode, shape, audit)
    played = Play(rule, qualities=qualities, workers=1, choose=lambda _: 0).to_the_end()
    without = Play(make_rule(name, mode, shape, 0.0), qualities=qualities, workers=1, choose=lambda _: 0).to_the_end()
    for trial, other in zip(played.trials, without.trials, strict=True):
        if trial.audited_at is None:
            assert trial == other
        else:
            assert other.state == "PRUNED"
            assert trial.epochs[: trial.audited_at] == other.epochs
