"""The report of a search at any moment of it, from a real ledger."""

import pytest
from optuna.distributions import FloatDistribution

from search.report.overview import status_table
from search.report.page import write_page
from search.report.report import halved_texts, left_out_text, report_data

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


def test_a_trial_that_waits_at_its_rung_is_not_told_as_one_at_work(make_search):
    folder, ledger = make_search([0.4, 0.5, 0.6], [0.3], [])
    failed = ledger.start(encoded={"optimizer.lr": 0.01}, distributions=LR, target=3, origin="random")
    ledger.end(failed, state="FAILED", reason="diverged: loss is nan")
    data = report_data(folder)
    assert data["standings"] == {"waiting": 1, "running": 2, "failed": 1}
    assert list(status_table(data).columns[1].cells)[2] == "4 of 9: 1 failed, 2 running, 1 waiting"
    assert "1 failed, 2 running, 1 waiting" in write_page(folder).read_text()


def test_a_leaderboard_that_leaves_trials_out_says_how_many(make_search):
    folder, _ = make_search(*([0.1 * number] for number in range(12)))
    data = report_data(folder)
    assert (len(data["leaderboard"]), data["num_ranked"]) == (10, 12)
    assert left_out_text(data) == "and 2 more, all behind these"
    assert left_out_text(data) in write_page(folder).read_text()


@pytest.mark.parametrize(("num_trials", "drawn"), [(19, False), (20, True)])
def test_importances_of_few_trials_are_not_drawn(make_search, num_trials, drawn):
    folder, _ = make_search(*([0.1, 0.1, 0.05 * number] for number in range(num_trials)))
    words = "importances of fewer than 20 say nothing"
    assert (words in write_page(folder).read_text()) != drawn
