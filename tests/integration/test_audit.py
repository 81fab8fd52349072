"""A search that ends when more trials promise too little, then trains on some of those it stopped: killed in it or not."""

import pytest

pytestmark = pytest.mark.slow

SEARCH = {"trials": 400, "seed": 3, "name": "cells", "tolerance": 0.9}
SCHEDULER = {"min_epochs": 1, "max_epochs": 3, "reduction": 3, "audit": 0.5}


@pytest.fixture(scope="module")
def audited(make_place):
    place = make_place()
    place.write_space(search=SEARCH, scheduler=SCHEDULER)
    return place, place.told("run", "space.yaml")


def test_it_begins_no_more_trials_and_says_why(audited):
    place, told = audited
    assert "below search.tolerance 0.9" in " ".join(told.split())
    assert 20 <= len(place.ledger().trials()) < 100


def test_what_audits_showed_is_told_on_the_terminal_in_the_document_and_on_the_page(audited):
    place, told = audited
    trials = [trial for trial in place.ledger().trials() if trial.audited_at is not None]
    assert trials
    assert all(trial.state == "COMPLETE" and trial.last_epoch == 3 > trial.audited_at for trial in trials)
    audit = place.read("report", "cells")["winner"]["audit"]
    assert audit["audited"] == {str(trial.number): trial.audited_at for trial in trials}
    line = f"of {len(trials)} audited stopped trials {len(audit['won'])} would have won"
    assert line in " ".join(told.split())
    assert line in (place.folder / "searches/cells/report.html").read_text()


@pytest.mark.long
def test_killed_as_it_trains_on_what_it_stopped_it_ends_as_the_unbroken_search(audited, make_place):
    whole, _ = audited
    place = make_place()
    place.write_space(search=SEARCH, scheduler=SCHEDULER)
    journal = place.folder / "searches/cells/ledger.journal"

    def an_audit_is_at_work():
        if not journal.is_file():
            return False
        return any(trial.audited_at is not None and trial.last_epoch == 2 for trial in place.ledger().trials())

    place.kill_when(an_audit_is_at_work, "run", "space.yaml")
    place.told("resume", "cells")
    assert dump(place) == dump(whole)


def dump(place):
    return [
        (trial.number, trial.params, trial.state, trial.audited_at, trial.last_epoch)
        for trial in place.ledger().trials()
    ]
