"""All that is told of one trial, from a real ledger."""

import pytest

from search.report.one_trial import trial_data, trial_lines
from trainable.errors import UserError


def test_a_trial_is_told_with_its_configuration_its_curve_its_failure_and_its_files(make_search):
    folder, ledger = make_search([0.4], [0.5, 0.7])
    failure = {"reason": "KeyError: 'a'", "details": "Traceback\n  line 3\nKeyError: 'a'\n", "of_machine": False}
    ledger.count_failure(1, failure=failure)
    ledger.end(1, state="FAILED", reason="failed 1 times: KeyError: 'a'")
    data = trial_data(folder, number=1)
    assert trial_lines(data) == [
        f"trial 1 of {folder.name}: failed, by random",
        "reason: failed 1 times: KeyError: 'a'",
        "best val/balanced_accuracy 0.7000",
        "  epoch 1: 0.5000",
        "  epoch 2: 0.7000",
        "  optimizer.lr: 0.01",
        "failure: failed in epoch 3 (KeyError: 'a'), 1 times so far",
        "Traceback",
        "  line 3",
        "KeyError: 'a'",
        f"files: {data['checkpoints']}",
    ]
    assert data["values"] == {"1": 0.5, "2": 0.7}
    assert data["config"]["optimizer.lr"] == 0.01
    assert data["config"]["data.path"] == "images"
    assert (data["attempts"], data["losses"], data["failure"]["epoch"]) == (1, 0, 3)


def test_a_trial_without_an_epoch_has_no_value(make_search):
    folder, _ = make_search([])
    data = trial_data(folder, number=0)
    assert (data["best"], data["failure"], data["best_checkpoint"]) == (None, None, None)
    assert "no epoch is recorded" in trial_lines(data)


@pytest.mark.parametrize(("trials", "known"), [((), "none yet"), (([0.4], [0.5]), "0 to 1")])
def test_a_number_that_no_trial_has_is_one_line(make_search, trials, known):
    folder, _ = make_search(*trials)
    with pytest.raises(UserError, match=f"--trial: there is no trial 7 in {folder.name}; there are {known}"):
        trial_data(folder, number=7)
