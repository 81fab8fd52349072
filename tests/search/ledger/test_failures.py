"""What is told of a trial whose worker failed."""

import pytest

from search.ledger.failures import failure_text
from search.ledger.trials import Trial


@pytest.mark.parametrize(
    ("state", "of_machine", "text"),
    [
        ("RUNNING", True, "lost its worker in epoch 4 (node gone), 2 times so far; it goes on from epoch 0"),
        ("RUNNING", False, "failed in epoch 4 (node gone), 1 times so far; it goes on from epoch 0"),
        ("FAILED", False, "failed in epoch 4 (node gone), 1 times so far"),
    ],
)
def test_a_failure_is_told_with_its_epoch_and_from_where_the_trial_goes_on(state, of_machine, text):
    failure = {"reason": "node gone", "details": "", "epoch": 4, "of_machine": of_machine}
    trial = Trial(
        number=0, params={}, state=state, epochs=(), target=9, origin="", attempts=1, losses=2, failure=failure
    )
    assert failure_text(trial) == text
