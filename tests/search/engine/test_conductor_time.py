"""A search that has so much time by the clock, played out over a real ledger; only the clock is not real."""

import pytest

from search.engine.clock import FINISHING_SECONDS, Clock
from search.engine.conductor import OUT_OF_TIME, Conductor, Limits
from search.engine.halving import Halving
from search.engine.no_halving import NoHalving
from search.engine.reports import EpochReport
from search.engine.sampling import Sampling
from search.ledger import ledger as ledgers
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC = "val/accuracy"
SPACE = make_space({"optimizer.lr": parse_dimension({"log": [1e-5, 1e-1]}, where="lr")})
EPOCH = 10.0


class Driver:
    """One worker and a clock that its epochs move."""

    def __init__(self, folder, *, minutes, spent=0.0, rule=None, trials=None):
        self.now = spent
        self.asked = minutes * 60 + FINISHING_SECONDS
        self.conductor = Conductor(
            ledgers.create(folder, name="s", storage=None, space=SPACE, metric=METRIC, notes={"metric": METRIC}),
            space=SPACE,
            rule=rule or Halving(metric=METRIC, mode="promote", min_epochs=1, max_epochs=9, reduction=3),
            sampling=Sampling(sampler="random", seed=0, random_share=0.2, metric=METRIC, rungs=(1, 3, 9)),
            limits=Limits(
                trials=trials,
                clock=Clock(asked_seconds=self.asked, spent_seconds=lambda: self.now, num_evaluations=0),
            ),
            on_change=lambda trial: None,
        )

    def play(self, seconds=lambda leg, epoch: EPOCH):
        while (leg := self.conductor.next_leg()) is not None:
            for epoch in range(leg.start + 1, 10):
                took = seconds(leg, epoch)
                self.now += took
                metrics = {METRIC: 0.5 - leg.number / 1000 + epoch / 100, "usage/seconds": took}
                ended = "last epoch" if epoch == 9 else None
                if self.conductor.report(leg.number, report=EpochReport(epoch, metrics, ended)) == "stop":
                    break
            self.conductor.leg_over(leg.number)
        return self.conductor.ledger.trials()


@pytest.mark.parametrize("minutes", [4, 10, 60])
def test_a_search_without_a_number_of_trials_spends_its_time_and_ends_in_it_with_its_best_in_full(tmp_path, minutes):
    driver = Driver(tmp_path, minutes=minutes)
    trials = driver.play()
    assert driver.conductor.finished
    assert driver.conductor.out_of_time
    longest_leg = 6 * EPOCH
    assert minutes * 60 - longest_leg < driver.now <= minutes * 60
    best = max(trials, key=lambda trial: trial.best(METRIC))
    assert (best.state, best.last_epoch) == ("COMPLETE", 9)


def test_a_trial_left_open_says_where_and_a_search_with_more_time_goes_on_with_it(tmp_path):
    first = Driver(tmp_path, minutes=1, rule=NoHalving(METRIC, 9))
    (trial,) = first.play()
    assert (trial.state, trial.last_epoch, trial.reason) == ("RUNNING", 6, f"{OUT_OF_TIME} at epoch 6")
    assert first.now == 60
    more = Driver(tmp_path, minutes=1.5, spent=60, rule=NoHalving(METRIC, 9))
    assert more.conductor.next_leg().start == 6
    assert more.conductor.ledger.trial(0).reason is None
    again = Driver(tmp_path, minutes=1.5, spent=60, rule=NoHalving(METRIC, 9))
    (trial,) = again.play()
    assert (trial.state, trial.last_epoch) == ("COMPLETE", 9)


def test_a_search_resumed_without_more_time_trains_nothing(tmp_path):
    before = Driver(tmp_path, minutes=1, rule=NoHalving(METRIC, 9)).play()
    again = Driver(tmp_path, minutes=1, spent=60, rule=NoHalving(METRIC, 9))
    assert again.play() == before
    assert again.conductor.finished
    assert again.conductor.out_of_time


def test_an_epoch_that_takes_longer_than_those_before_stops_a_leg_that_seemed_to_fit(tmp_path):
    driver = Driver(tmp_path, minutes=2, rule=NoHalving(METRIC, 9))
    (trial,) = driver.play(seconds=lambda leg, epoch: EPOCH if epoch < 4 else 25.0)
    assert driver.now == 105  # one more of 25 seconds ends at 130
    assert trial.last_epoch == 6


def test_a_new_trial_that_would_not_end_in_time_is_not_begun(tmp_path):
    driver = Driver(tmp_path, minutes=2.9, rule=NoHalving(METRIC, 9))
    (trial,) = driver.play()
    assert trial.state == "COMPLETE"
    assert driver.now == 90
    assert driver.conductor.out_of_time


def test_where_every_trial_is_decided_in_time_the_search_is_not_out_of_time(tmp_path):
    driver = Driver(tmp_path, minutes=60, trials=5)
    trials = driver.play()
    assert driver.conductor.finished
    assert not driver.conductor.out_of_time
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}


def test_a_time_that_is_over_before_the_first_trial_begins_none(tmp_path):
    driver = Driver(tmp_path, minutes=1, spent=61)
    assert driver.play() == []
    assert driver.conductor.finished
    assert driver.conductor.out_of_time
