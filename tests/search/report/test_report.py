"""The report of a search at any moment of it, from a real ledger."""

import pytest
from optuna.distributions import FloatDistribution

from search.report.page import write_page
from search.report.report import halved_texts, report_data

METRIC = "val/balanced_accuracy"
LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}


@pytest.mark.parametrize("trials", [(), ([],), ([0.4],), ([0.4, 0.5], [0.3], [])])
@pytest.mark.parametrize("has_failed", [False, True])
def test_a_search_that_has_not_reached_its_first_rung_has_a_page(make_search, trials, has_failed):
    folder, ledger = make_search(*trials)
    for number in range(len(trials) if has_failed else 0):
        ledger.end(number, state="FAILED", reason="diverged: loss is nan")
    assert len(report_data(folder)["leaderboard"]) == (0 if has_failed else sum(map(bool, trials)))
    page = write_page(folder).read_text()
    assert "Leaderboard" in page
    assert ("Learning curves" in page) == any(map(bool, trials))


def test_a_trial_that_did_not_fit_into_memory_is_told_with_the_batch_that_did(make_search):
    folder, ledger = make_search([0.4], [0.5])
    ledger.record(1, epoch=2, metrics={METRIC: 0.6, "usage/batch_size": 8.0, "usage/halvings": 1.0})
    ledger.record(1, epoch=3, metrics={METRIC: 0.6, "usage/batch_size": 4.0, "usage/halvings": 2.0})
    data = report_data(folder)
    assert data["halved"] == {"1": 4}
    (line,) = halved_texts(data["halved"])
    assert line.startswith("trial 1 did not fit into the GPU's memory: trained with batches of 4 and as many images")
