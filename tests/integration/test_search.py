"""One whole search on real images through the command line, looked at from every side."""

import json
import re

import pytest

from trainable.checkpoint import read_state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(make_place):
    place = make_place()
    place.write_space()
    return place, place.succeed("run", "space.yaml")


def test_it_prints_the_leaderboard_the_best_configuration_the_test_score_and_the_links(searched):
    _, result = searched
    assert re.search(r"trial +val/balanced_accuracy", result.stdout)
    assert "best configuration, trial" in result.stdout
    assert "optimizer.lr:" in result.stdout
    assert re.search(r"baseline linear_probe: val/balanced_accuracy [01]\.\d{4}", result.stdout)
    assert re.search(r"test/balanced_accuracy [01]\.\d{4}", result.stdout)
    assert "python -m search ui" in result.stdout
    assert "workflowType=machine_learning" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_every_trial_ended_as_the_rule_says(searched):
    place, _ = searched
    trials = place.ledger().trials()
    assert len(trials) == 6
    assert {t.state for t in trials} == {"COMPLETE", "PRUNED"}
    assert {t.last_epoch for t in trials if t.state == "PRUNED"} <= {1, 2}
    assert {t.last_epoch for t in trials if t.state == "COMPLETE"} == {4}


def test_only_the_best_epoch_of_an_ended_trial_is_kept(searched):
    place, _ = searched
    for trial in place.ledger().trials():
        (checkpoint,) = (place.folder / "searches/cells/checkpoints" / f"{trial.number:04d}").iterdir()
        values = trial.values("val/balanced_accuracy")
        assert read_state(checkpoint)["epoch"] == min(e for e in values if values[e] == max(values.values()))


def test_what_is_recorded_is_what_the_checkpoint_scored(searched):
    place, _ = searched
    for trial in place.ledger().trials():
        (checkpoint,) = (place.folder / "searches/cells/checkpoints" / f"{trial.number:04d}").iterdir()
        state = read_state(checkpoint)
        recorded = {epoch.number: epoch.metrics for epoch in trial.epochs}[state["epoch"]]
        assert dict(recorded) == state["results"]["metrics"]


def test_workers_stay_warm(searched):
    """One process takes all legs of a search with one worker: its peak memory never falls from trial to trial."""
    place, _ = searched
    epochs = sorted((e for t in place.ledger().trials() for e in t.epochs), key=lambda e: e.recorded)
    peaks = [e.metrics["usage/peak_memory_bytes"] for e in epochs]
    assert peaks == sorted(peaks)


def test_the_test_split_was_scored_once_for_the_best_trial(searched):
    place, _ = searched
    notes = place.ledger().notes
    report = place.json("report", "cells")
    assert notes["test"]["trial"] == report["best_trial"]
    assert report["test"] == notes["test"]["metrics"]
    assert set(notes["test"]["per_class"]) == {"defective", "functional"}


def test_running_it_again_trains_nothing_and_says_the_same(searched):
    place, first = searched
    before = [t.epochs for t in place.ledger().trials()]
    again = place.succeed("run", "space.yaml")
    assert [t.epochs for t in place.ledger().trials()] == before
    assert (
        again.stdout[again.stdout.index("best configuration") :]
        == first.stdout[first.stdout.index("best configuration") :]
    )


def test_another_space_under_its_name_is_refused_with_the_difference(searched):
    place, _ = searched
    result = place.run("run", "space.yaml", "--set", "search.seed=9")
    assert result.returncode == 2
    assert "search.seed: 3 -> 9" in result.stderr
    assert "--name" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_status_and_list_tell_the_same_story(searched):
    place, _ = searched
    status = place.json("status", "cells")
    assert status["state"] == "finished"
    assert sum(status["trials"].values()) == 6
    assert place.json("list") == [status]
    assert "finished" in place.succeed("status", "cells").stdout
    assert "cells" in place.succeed("list").stdout


def test_the_page_stands_alone_with_all_its_plots(searched):
    place, _ = searched
    place.succeed("report", "cells")
    page = (place.folder / "searches/cells/report.html").read_text()
    for title in (
        "Leaderboard",
        "History",
        "Learning curves",
        "Parallel coordinates",
        "Importances",
        "Timeline",
        "Classes",
    ):
        assert f"<h2>{title}" in page
    assert page.count("plotly-graph-div") >= 4
    assert not re.search(r'<script[^>]+src="http', page)


def test_a_search_goes_on_with_more_trials(searched):
    place, _ = searched
    before = [(t.number, t.state, t.last_epoch) for t in place.ledger().trials()]
    document = json.loads(place.succeed("resume", "cells", "--trials", "8", "--json").stdout)
    assert document["status"] == "finished"
    trials = place.ledger().trials()
    assert [(t.number, t.state, t.last_epoch) for t in trials][:6] == before
    assert len(trials) == 8
    assert not any(t.state == "RUNNING" for t in trials)


def test_an_unknown_name_is_one_line_with_the_nearest(searched):
    place, _ = searched
    result = place.run("resume", "cell")
    assert result.returncode == 2
    assert "did you mean 'cells'?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_plan_says_what_the_search_took(searched):
    place, _ = searched
    plan = place.json("plan", "space.yaml")
    assert plan["rungs"]["1"] == 6
    assert 3 <= plan["rungs"]["2"] <= 5
    assert plan["epochs"] == 6 + plan["rungs"]["2"] + 2 * plan["rungs"]["4"]
    assert plan["images"] == {"train": 42, "val": 9, "test": 9}
    assert plan["epoch_seconds"]["most"] >= plan["epoch_seconds"]["least"] > 0
    sizes = [
        sum(file.stat().st_size for file in trial.rglob("*"))
        for trial in (place.folder / "searches/cells/checkpoints").iterdir()
    ]
    assert plan["checkpoint_bytes"] >= sum(sizes)
    assert "the search" in place.succeed("plan", "space.yaml").stdout


def test_check_looks_at_the_images_without_decoding_them(searched):
    place, _ = searched
    assert "2 classes" in place.succeed("check", "space.yaml", "--data", "images").stdout
    result = place.run("check", "space.yaml", "--data", "imags")
    assert result.returncode == 2
    assert "data.path: 'imags' does not exist" in result.stderr
