import pytest

from search.engine.forecast import TRIALS_PLAYED, expected_epochs, expected_trials, trials_within
from search.engine.halving import Halving


def rule(mode="promote", low=1, high=9, finalists=1):
    return Halving(metric="val/accuracy", mode=mode, min_epochs=low, max_epochs=high, reduction=3, finalists=finalists)


def test_every_trial_reaches_the_first_rung_and_at_least_the_promised_share_the_next():
    reaching = expected_trials(rule(), num_trials=27)
    assert reaching[1] == 27
    assert 9 <= reaching[3] <= 18
    assert 3 <= reaching[9] <= reaching[3]


def test_two_trials_are_enough_for_one_finalist():
    assert expected_trials(rule(), num_trials=2) == {1: 2, 3: 1, 9: 1}
    assert expected_trials(rule(finalists=2), num_trials=2) == {1: 2, 3: 2, 9: 2}


def test_epochs_are_counted_from_rung_to_rung():
    assert expected_epochs(rule(), num_trials=2) == 2 + 2 + 6
    assert expected_epochs(rule(low=9), num_trials=7) == 63


@pytest.mark.parametrize("mode", ["promote", "stop"])
@pytest.mark.parametrize("trials", [1000, 1001, 5000])
def test_a_large_search_is_foreseen_by_the_shares_that_go_on(mode, trials):
    found = expected_trials(rule(mode), num_trials=trials)
    assert found[1] == trials
    assert found[3] == pytest.approx(trials / 3, rel=0.15)
    assert found[9] == pytest.approx(trials / 9, rel=0.25)


@pytest.mark.parametrize("mode", ["promote", "stop"])
def test_five_times_the_trials_take_no_more_than_some_five_times_the_calls(mode, calls_of):
    """Up to the number that is played, beyond which they take none."""
    counts = {}
    for trials in (200, 1000, 9000):
        expected_trials.cache_clear()
        counts[trials] = calls_of(lambda: expected_trials(rule(mode), num_trials=trials))  # noqa: B023
    plays = TRIALS_PLAYED // 200
    assert counts[1000] < 1.5 * 5 * counts[200] / plays
    assert counts[9000] < 1.1 * counts[1000]


def test_a_large_search_goes_as_far_as_it_does_when_it_is_played_whole():
    """Counted once in one play of 5,000 trials with rungs 1 to 81, of which three are finalists."""
    whole = {1: 5000, 3: 1683, 9: 571, 27: 207, 81: 74}
    assert expected_trials(rule(high=81, finalists=3), num_trials=5000) == pytest.approx(whole, rel=0.15)


def test_a_large_search_has_all_its_finalists():
    assert expected_trials(rule(high=81, finalists=100), num_trials=5000)[81] == 100
    assert expected_trials(rule(high=81, finalists=400), num_trials=400) == {1: 400, 3: 400, 9: 400, 27: 400, 81: 400}


@pytest.mark.parametrize("trials", [1, 5, 64, 300])
def test_stopping_lets_the_first_to_arrive_go_on(trials):
    stopping = expected_trials(rule("stop"), num_trials=trials)
    assert stopping[1] == trials
    assert stopping[9] >= 1


@pytest.mark.parametrize("epochs", [1, 9, 50, 400])
def test_the_trials_within_some_epochs_take_no_more_and_another_one_would(epochs):
    most = trials_within(rule(), epochs=epochs)
    assert most == 1 or expected_epochs(rule(), num_trials=most) <= epochs
    assert expected_epochs(rule(), num_trials=most + 1) > epochs
