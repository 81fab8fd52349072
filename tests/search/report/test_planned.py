"""How far off plans were: against the ledger, and for the next plan."""

import json
import shutil
import socket

import pytest

from search.ledger.files import PLAN
from search.ledger.stored import SPEC_FILE, open_ledger
from search.report.planned import earlier_errors, keep_plan, learnt_line, learnt_range, plan_error_line
from search.report.report import report_data, time_texts

PLANNED = {"epochs": 10, "confirm_epochs": 2, "hours": {"least": 40 / 3600, "most": 160 / 3600}}  # 80 s for 8 epochs


@pytest.fixture
def planned(make_search):
    """A folder with a plan of ten seconds an epoch, and its finished search of four epochs."""
    folder, ledger = make_search([0.4, 0.5, 0.6], [0.3])
    spec, _ = open_ledger(folder)
    away = (folder / SPEC_FILE).rename(folder / "away")
    keep_plan(PLANNED, spec=spec, folder=folder)
    away.rename(folder / SPEC_FILE)
    for number in range(2):
        ledger.end(number, state="PRUNED", reason="halving")
    ledger.note(stretches=[{"began": 0.0, "seconds": 60.0}], finished=True)
    return folder


def test_a_plan_is_told_beside_what_the_search_took(planned):
    data = report_data(planned)
    assert data["plan"]["ratio"] == pytest.approx(1.5)  # fifteen seconds an epoch
    assert "planned: 40 s to 2.7 min for 8 epochs; it took 60 s for 4, 1.5 times as long an epoch" in time_texts(data)


def test_a_plan_of_another_space_or_budget_says_nothing(planned):
    written = json.loads((planned / SPEC_FILE).read_text())
    for change in ({"trials": 10}, {"seed": 7}, {"budget": {"epochs": 40}}):
        (planned / SPEC_FILE).write_text(json.dumps(written | {"search": written["search"] | change}))
        assert report_data(planned)["plan"] is None
    (planned / SPEC_FILE).write_text(json.dumps(written))
    assert report_data(planned)["plan"] is not None
    (planned / PLAN).write_text("[1")
    assert report_data(planned)["plan"] is None
    assert plan_error_line(None) == ""


def test_a_search_that_has_begun_keeps_the_plan_from_before(planned):
    before = (planned / PLAN).read_bytes()
    spec, _ = open_ledger(planned)
    keep_plan(PLANNED | {"epochs": 99}, spec=spec, folder=planned)
    assert (planned / PLAN).read_bytes() == before


def test_finished_searches_of_this_machine_tell_how_far_off_plans_are(planned, tmp_path_factory):
    place = shutil.copytree(planned, tmp_path_factory.mktemp("searches") / "cells")
    assert earlier_errors(place.parent) == [pytest.approx(1.5)]
    document = json.loads((place / PLAN).read_text())
    assert document["host"] == socket.gethostname()
    (place / PLAN).write_text(json.dumps(document | {"host": "another"}))
    assert earlier_errors(place.parent) == []
    (place / PLAN).write_text(json.dumps(document))
    _, ledger = open_ledger(place)
    ledger.note(finished=False)
    assert earlier_errors(place.parent) == []
    (place / SPEC_FILE).write_text("{")  # a broken one does not hide the others
    assert earlier_errors(place.parent) == []
    shutil.rmtree(place)
    assert earlier_errors(place.parent) == []


def test_the_next_plan_is_as_far_off_as_the_earlier_ones():
    plan = {"asked_seconds": None, "hours": {"least": 0.5, "most": 2.0}, "epochs": 30}
    assert learnt_range(plan, ratios=[]) is None
    assert learnt_line(learnt_range(plan, ratios=[1.5, 0.5, 1.0])) == (
        "3 here took 0.5 to 1.5 times as long an epoch as planned; so this one 30 min to 1.5 h"
    )
    in_time = learnt_range(plan | {"asked_seconds": 600}, ratios=[1.5])
    assert learnt_line(in_time) == "1 here took 1.5 times as long an epoch as planned; so this one 20 epochs"
    assert learnt_range(plan | {"asked_seconds": 600}, ratios=[0.5, 1.5])["epochs"] == [20, 60]
