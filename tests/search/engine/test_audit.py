"""Stopped trials that are trained to the end all the same: over real ledgers, reports as workers send them."""

from datetime import UTC, datetime

import pytest

from search.engine.audit import Audited, is_drawn, with_audit
from search.engine.clock import FINISHING_SECONDS, Clock
from search.engine.conductor import Conductor
from search.engine.halving import Halving
from search.engine.history import History
from search.engine.limits import Limits
from search.engine.reports import EpochReport
from search.engine.sampling import Sampling
from search.ledger import ledger as ledgers
from search.ledger.trials import EpochRecord, Trial
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC = "val/accuracy"
SPACE = make_space({"optimizer.lr": parse_dimension({"log": [1e-5, 1e-1]}, where="lr")})
SHARE, SEED, LAST, EPOCH_SECONDS = 0.5, 2, 4, 10.0
MODES = pytest.mark.parametrize("mode", ["promote", "stop"])


class Search:
    """One driver over the ledger in a folder; a late trial is one whose values rise only after the first rung."""

    def __init__(self, folder, *, mode="promote", trials=8, share=SHARE, late=(), minutes=None, spent=0.0, **limits):
        self.late, self.now = late, spent
        clock = None
        if minutes is not None:
            asked = minutes * 60 + FINISHING_SECONDS
            clock = Clock(asked_seconds=asked, spent_seconds=lambda: self.now, num_evaluations=0)
        rule = Halving(metric=METRIC, mode=mode, min_epochs=1, max_epochs=LAST, reduction=2)
        self.conductor = Conductor(
            ledgers.create(folder, name="s", storage=None, space=SPACE, metric=METRIC, notes={"metric": METRIC}),
            space=SPACE,
            rule=with_audit(rule, share=share, seed=SEED),
            sampling=Sampling(sampler="random", seed=0, random_share=0.2, metric=METRIC, rungs=(1, 2, LAST)),
            limits=Limits(trials=trials, clock=clock, **limits),
            on_change=lambda trial: None,
        )

    def value(self, number, epoch):
        if number in self.late:
            return 0.1 if epoch == 1 else 0.99
        return 0.5 - number / 100 + epoch / 1000

    def play(self, *, calls=None):
        """Train until nothing is left, or until the driver is lost after so many reports."""
        done = 0
        while (leg := self.conductor.next_leg()) is not None:
            for epoch in range(leg.start + 1, LAST + 1):
                if done == calls:
                    return None
                done, self.now = done + 1, self.now + EPOCH_SECONDS
                metrics = {METRIC: self.value(leg.number, epoch), "usage/seconds": EPOCH_SECONDS}
                ended = "last epoch" if epoch == LAST else None
                if self.conductor.report(leg.number, report=EpochReport(epoch, metrics, ended)) == "stop":
                    break
            self.conductor.leg_over(leg.number)
        return self.conductor.ledger.trials()


def dump(trials):
    return [(t.number, t.params, t.state, t.reason, t.values(METRIC), t.audited_at) for t in trials]


def test_the_same_trials_are_drawn_of_a_seed_and_about_the_share_asked_for():
    drawn = [is_drawn(number, share=0.05, seed=3) for number in range(4000)]
    assert drawn == [is_drawn(number, share=0.05, seed=3) for number in range(4000)]
    assert sum(drawn) == pytest.approx(200, abs=3 * 14)  # three standard deviations
    assert drawn != [is_drawn(number, share=0.05, seed=4) for number in range(4000)]


def test_without_a_share_the_rule_is_as_it_was():
    rule = Halving(metric=METRIC, mode="stop", min_epochs=1, max_epochs=LAST, reduction=2)
    assert with_audit(rule, share=0.0, seed=0) is rule


@MODES
def test_stopped_trials_that_are_drawn_end_in_full_and_say_where_they_were_stopped(tmp_path, mode):
    trials = Search(tmp_path, mode=mode).play()
    audited = [trial for trial in trials if trial.audited_at is not None]
    assert audited
    assert {(trial.state, trial.last_epoch) for trial in audited} == {("COMPLETE", LAST)}
    assert {trial.audited_at for trial in audited} <= {1, 2}
    assert any(trial.state == "PRUNED" for trial in trials)


@MODES
@pytest.mark.parametrize("calls", range(1, 20, 2))
def test_a_driver_lost_after_any_epoch_changes_nothing(tmp_path, mode, calls):
    straight = Search(tmp_path / "straight", mode=mode).play()
    lost = Search(tmp_path / "lost", mode=mode)
    assert lost.play(calls=calls) is None  # it was lost at work
    assert dump(Search(tmp_path / "lost", mode=mode).play()) == dump(straight)


@MODES
def test_an_audited_trial_that_turns_out_best_is_the_best(tmp_path, mode):
    drawn = next(number for number in range(4, 8) if is_drawn(number, share=SHARE, seed=SEED))
    trials = Search(tmp_path, mode=mode, late={drawn}).play()
    assert trials[drawn].audited_at == 1
    assert max(trials, key=lambda trial: trial.best(METRIC)).number == drawn


@MODES
def test_what_an_audit_brings_decides_nothing_in_a_search_that_is_enlarged(tmp_path, mode):
    drawn = next(number for number in range(4, 8) if is_drawn(number, share=SHARE, seed=SEED))
    for name, share in (("with", SHARE), ("without", 0.0)):
        for trials in (8, 12):
            Search(tmp_path / name, mode=mode, late={drawn}, share=share, trials=trials).play()
    found = Search(tmp_path / "with").conductor.ledger.trials()
    plain = Search(tmp_path / "without").conductor.ledger.trials()
    for trial, other in zip(found, plain, strict=True):
        assert trial.params == other.params
        assert (trial.audited_at or trial.last_epoch) == other.last_epoch


@MODES
def test_of_a_budget_of_epochs_what_audits_take_is_kept(tmp_path, mode):
    trials = Search(tmp_path, mode=mode, trials=None, epochs=60).play()
    audited = [trial for trial in trials if trial.audited_at is not None]
    assert audited
    assert any(trial.state == "COMPLETE" for trial in audited)
    assert sum(trial.last_epoch for trial in trials) <= 60 + LAST  # what is at work is finished
    left_out = [trial for trial in audited if trial.state == "PRUNED"]
    assert all("audited no further: the budget is spent" in trial.reason for trial in left_out)


def test_of_the_time_by_the_clock_what_audits_take_is_kept(tmp_path):
    search = Search(tmp_path, trials=None, minutes=10)
    trials = search.play()
    assert search.now <= 600
    assert search.conductor.out_of_time
    assert any(trial.audited_at is not None and trial.state == "COMPLETE" for trial in trials)
    assert max(trials, key=lambda trial: trial.best(METRIC)).state == "COMPLETE"


def test_an_audit_that_the_time_does_not_allow_stays_open_and_goes_on_with_more(tmp_path):
    first = Search(tmp_path, minutes=3)
    trials = first.play()
    assert first.now <= 180
    assert first.conductor.out_of_time
    assert all(trial.reason for trial in trials if trial.state == "RUNNING")
    more = Search(tmp_path, minutes=30, spent=180).play()
    assert not any(trial.state == "RUNNING" for trial in more)
    assert any(trial.audited_at is not None and trial.state == "COMPLETE" for trial in more)


def test_no_more_than_half_of_a_budget_is_kept_of_the_first_that_are_drawn(tmp_path):
    record = EpochRecord(number=1, metrics={METRIC: 0.5, "usage/seconds": 10.0}, recorded=datetime.now(UTC))
    history = History(
        Trial(number=number, params={"x": number}, state="RUNNING", epochs=(record,), target=1, origin="random")
        for number in range(8)
    )
    rule = Search(tmp_path).conductor.rule
    assert isinstance(rule, Audited)
    owed = [LAST - 1 for number in range(8) if rule.draws(number)]
    assert len(owed) == 4
    assert rule.epochs_kept(history, budget=1000) == sum(owed)
    assert rule.seconds_kept(history, budget=1e6) == 10.0 * sum(owed)
    assert rule.epochs_kept(history, budget=2 * sum(owed[:2])) == sum(owed[:2])
    assert rule.epochs_kept(history, budget=2 * owed[0] - 1) == 0
