"""A search that trains its last candidates on a second seed: killed in it or not, told everywhere, found by a promotion."""

import json

import pytest
from mlflow import MlflowClient

from search.ledger.refits import existing_refits
from search.ledger.stored import stored_spec

pytestmark = pytest.mark.slow

METRIC = "val/balanced_accuracy"
SEARCH = {"trials": 3, "seed": 3, "name": "cells", "confirm": 2}
SCHEDULER = {"min_epochs": 1, "max_epochs": 3, "reduction": 3, "finalists": 2}
PROMOTE = {"model": "cells", "confirm": {"top": 2, "seeds": 1}, "max_ece": None, "mcnemar_p": None}


@pytest.fixture(scope="module")
def confirmed(make_place):
    place = make_place()
    place.write_space(search=SEARCH, scheduler=SCHEDULER, promote=PROMOTE)
    return place, place.told("run", "space.yaml")


def refits_of(place):
    folder = place.folder / "searches/cells"
    return existing_refits(stored_spec(folder), folder=folder).trials()


def dump(trials):
    return [
        (t.number, t.params, t.state, [(e.number, e.metrics[METRIC], e.metrics["val/loss"]) for e in t.epochs])
        for t in trials
    ]


def test_the_winner_and_its_seeds_are_told_on_the_terminal_in_the_document_and_in_mlflow(confirmed):
    place, told = confirmed
    confirmation = place.ledger().notes.confirmation
    assert len(confirmation.trials) == 2
    assert not confirmation.why_not
    data = place.read("report", "cells")
    rows = {row["trial"]: row for row in data["winner"]["confirmed"]["trials"]}
    means = {number: row["mean"] for number, row in rows.items()}
    best = data["best_trial"]
    assert means[best] == max(means.values())
    assert place.ledger().notes.test.trial == best
    interval = data["winner"]["interval"]
    assert interval["trial"] == best
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert interval["num_images"] == 9
    words = " ".join(told.split())
    assert f"spread {rows[best]['spread']:.4f}: the winner" in words
    assert "the best of 3 trials on the same images" in words
    assert f"once more, with seed {next(iter(confirmation.trials[0].seeds))}" in words
    assert "the winner" in (place.folder / "searches/cells/report.html").read_text()
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    (study,) = [run for run in runs if run.data.tags.get("search.kind") == "study"]
    assert study.data.metrics["best/balanced_accuracy_mean"] == pytest.approx(means[best], abs=1e-5)
    assert study.data.metrics["best/balanced_accuracy_low"] == pytest.approx(interval["low"], abs=1e-5)
    assert "the winner" in study.data.tags["mlflow.note.content"]
    assert sum(run.data.tags.get("search.kind") == "refit" for run in runs) == 2


@pytest.mark.long
def test_killed_as_the_candidates_are_trained_it_ends_as_the_unbroken_search(confirmed, make_place):
    whole, _ = confirmed
    place = make_place()
    place.write_space(search=SEARCH, scheduler=SCHEDULER, promote=PROMOTE)
    journal = place.folder / "searches/cells/ledger.journal"

    def a_refit_has_an_epoch():
        return journal.is_file() and "epoch:" in journal.read_text().partition("cells/refits")[2]

    place.kill_when(a_refit_has_an_epoch, "run", "space.yaml")
    assert any(refit.state == "RUNNING" or len(refits_of(place)) == 1 for refit in refits_of(place))
    assert place.ledger().notes.confirmation is None
    place.told("resume", "cells")
    assert dump(refits_of(place)) == dump(refits_of(whole))
    assert dump(place.ledger().trials()) == dump(whole.ledger().trials())
    for name in ("confirmation", "interval", "test"):
        assert getattr(place.ledger().notes, name) == getattr(whole.ledger().notes, name)


def test_the_search_run_again_trains_nothing(confirmed):
    place, _ = confirmed
    before = dump(refits_of(place))
    place.told("run", "space.yaml")
    assert dump(refits_of(place)) == before
    assert place.ledger().notes.confirmation is not None


def test_a_promotion_trains_no_candidate_again(confirmed):
    place, _ = confirmed
    before = dump(refits_of(place))
    promoted = json.loads(
        place.call("promote", "cells", "--dry-run", "--json").stdout
    )  # which the gate need not let through
    assert dump(refits_of(place)) == before
    recipes = {row["recipe"] for row in promoted["confirmed"]}
    assert recipes == {f"trial {trial.number}" for trial in place.ledger().notes.confirmation.trials}


def test_a_budget_without_room_for_it_names_the_winner_from_one_seed_and_says_so(make_place):
    place = make_place()
    search = SEARCH | {"trials": 2, "budget": {"epochs": 5}}
    place.write_space(search=search, scheduler=SCHEDULER | {"name": "none"})
    told = " ".join(place.told("run", "space.yaml").split())
    assert "not confirmed on a second seed: it takes 6 epochs, search.budget leaves 0;" in told
    assert "the winner is named from one seed" in told
    assert refits_of(place) == []
