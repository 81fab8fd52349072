import pytest

from search.engine.forecast import expected_epochs, expected_trials
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


@pytest.mark.parametrize("trials", [1, 5, 64, 300])
def test_stopping_lets_the_first_to_arrive_go_on(trials):
    stopping = expected_trials(rule("stop"), num_trials=trials)
    assert stopping[1] == trials
    assert stopping[9] >= 1
