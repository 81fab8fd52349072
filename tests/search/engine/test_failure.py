"""When failures are no longer the trials' own affair, from records alone."""

from datetime import UTC, datetime

import pytest

from search.engine.failure import ALIKE_IN_A_ROW, FAILURES_IN_A_ROW, fail_alike, fail_endlessly, was_lost
from search.ledger.trials import Trial


def failed(number, *, error="KeyError: 'a'", of_machine=False, ended=None, reason=None):
    return Trial(
        number=number,
        params={},
        state="FAILED",
        epochs=(),
        target=1,
        origin="random",
        attempts=0 if of_machine else 1,
        losses=1 if of_machine else 0,
        failure={"reason": error, "details": "", "epoch": 1, "of_machine": of_machine},
        reason=reason or f"failed 1 times: {error}",
        ended=datetime(2026, 1, 1, second=number if ended is None else ended, tzinfo=UTC),
    )


def test_those_that_ended_last_are_alike_where_all_ended_by_one_error():
    trials = [failed(number) for number in range(ALIKE_IN_A_ROW)]
    assert fail_alike(trials) == trials
    assert fail_alike(trials[1:]) == []
    assert fail_alike([failed(9, ended=50, error="other"), *trials]) == []  # the last to end
    assert fail_alike([failed(9, error="other", ended=0), *trials[1:], failed(3)]) == [*trials[1:], failed(3)]


@pytest.mark.parametrize("last", [failed(2, of_machine=True), failed(2, reason="diverged: nan"), failed(2, error="b")])
def test_a_lost_worker_a_diverged_trial_and_another_error_are_not_alike(last):
    assert fail_alike([failed(0), failed(1), last]) == []


def test_a_trial_that_cannot_be_trained_was_not_lost():
    assert was_lost(failed(0))
    assert was_lost(failed(0, of_machine=True))
    assert not was_lost(failed(0, reason="diverged: nan"))


def test_a_search_fails_endlessly_after_so_many_in_a_row():
    trials = [failed(number) for number in range(FAILURES_IN_A_ROW)]
    assert fail_endlessly(trials)
    assert not fail_endlessly(trials[1:])
