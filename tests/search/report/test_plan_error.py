"""How far off plans were: against the ledger, and for the next plan."""

import shutil

import pytest

from search.ledger.notes import Planned
from search.ledger.stored import SPEC_FILE, open_ledger
from search.report.plan_error import earlier_errors, learnt_line, learnt_range, plan_error_line, planned_of
from search.report.report import report_data, time_texts
from search.space.sections import BudgetSection


@pytest.fixture
def planned(make_search):
    """A finished search of four epochs, fifteen seconds each, of which ten were planned."""
    folder, ledger = make_search([0.4, 0.5, 0.6], [0.3])
    for number in range(2):
        ledger.end(number, state="PRUNED", reason="halving")
    ledger.note(
        planned=Planned(epochs=8, least=40.0, most=160.0), stretches=[{"began": 0.0, "seconds": 60.0}], finished=True
    )
    return folder


def test_a_plan_is_told_beside_what_the_search_took(planned):
    data = report_data(planned)
    assert data["plan_error"]["ratio"] == pytest.approx(1.5)
    assert "planned: 40 s to 2.7 min for 8 epochs; it took 60 s for 4, 1.5 times as long an epoch" in time_texts(data)


def test_without_a_plan_nothing_is_told(planned):
    _, ledger = open_ledger(planned)
    ledger.note(planned=None)
    assert report_data(planned)["plan_error"] is None
    assert plan_error_line(None) == ""


def test_finished_searches_tell_how_far_off_plans_are(planned, tmp_path_factory):
    searches = tmp_path_factory.mktemp("searches")
    first, second = (shutil.copytree(planned, searches / name) for name in ("first", "second"))
    assert earlier_errors(searches) == [pytest.approx(1.5)] * 2
    (first / SPEC_FILE).write_text("{")  # a broken one does not hide the others
    assert earlier_errors(searches) == [pytest.approx(1.5)]
    open_ledger(second)[1].note(finished=False)
    assert earlier_errors(searches) == []


def test_the_next_plan_is_as_far_off_as_the_earlier_ones():
    next_plan = planned_of({"epochs": 10, "confirm_epochs": 2, "hours": {"least": 0.5, "most": 2.0}})
    assert next_plan == Planned(epochs=8, least=1800.0, most=7200.0)
    assert learnt_range(next_plan, budget=BudgetSection(), ratios=[]) is None
    assert learnt_line(learnt_range(next_plan, budget=BudgetSection(epochs=8), ratios=[1.5, 0.5, 1.0])) == (
        "3 here took 0.5 to 1.5 times as long an epoch as planned; so this one 30 min to 1.5 h"
    )
    for budget in (BudgetSection(minutes=10), BudgetSection(gpu_hours=1)):  # more or fewer epochs, not another time
        learnt = learnt_range(next_plan, budget=budget, ratios=[1.5])
        assert learnt_line(learnt) == "1 here took 1.5 times as long an epoch as planned"
