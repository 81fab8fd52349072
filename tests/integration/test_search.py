"""One whole search on real images through the command line, looked at from every side."""

import re
import shutil
import signal
import socket
import subprocess
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from trainable.training.checkpoint import read_state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(make_place):
    place = make_place(bare=True)
    place.write_space(baselines=["linear_probe"])
    assert "earlier searches" not in place.told("plan", "space.yaml")
    return place, place.succeed("run", "space.yaml")


def test_it_prints_the_leaderboard_the_best_configuration_the_test_score_and_the_links(searched):
    _, result = searched
    assert re.search(r"trial +val/balanced_accuracy", result.stdout)
    assert "best configuration, trial" in result.stdout
    assert "optimizer.lr:" in result.stdout
    assert re.search(r"baseline linear_probe: val/balanced_accuracy [01]\.\d{4}", result.stdout)
    assert re.search(r"test/balanced_accuracy [01]\.\d{4}", result.stdout)
    assert re.search(r"^planned: .* epochs; it took .* times as long an epoch$", result.stdout, re.MULTILINE)
    assert "python -m search ui" in result.stdout
    assert "workflowType=machine_learning" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_every_trial_ended_as_the_rule_says(searched):
    place, _ = searched
    trials = [trial for trial in place.ledger().trials() if trial.is_searched]  # a probe that wins is one more
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
        measured = {name: value for name, value in recorded.items() if name != "usage/start_seconds"}  # the worker's
        assert measured == state["results"]["metrics"]


def test_workers_stay_warm(searched):
    """One process takes all legs of a search with one worker: its peak memory never falls from trial to trial."""
    place, _ = searched
    epochs = sorted((e for t in place.ledger().trials() for e in t.epochs), key=lambda e: e.recorded)
    peaks = [e.metrics["usage/peak_memory_bytes"] for e in epochs]
    assert peaks == sorted(peaks)


def test_the_test_split_was_scored_once_for_the_best_trial(searched):
    place, _ = searched
    notes = place.ledger().notes
    report = place.read("report", "cells")
    assert notes.test.trial == report["best_trial"]
    assert report["test"] == notes.test.metrics
    assert set(notes.test.per_class) == {"defective", "functional"}


def test_running_it_again_trains_nothing_and_says_the_same(searched):
    place, first = searched
    before = [t.epochs for t in place.ledger().trials()]
    again = place.told("run", "space.yaml")
    assert [t.epochs for t in place.ledger().trials()] == before
    from_best = first.stdout[first.stdout.index("best configuration") :]
    assert again[again.index("best configuration") :] == from_best


def test_another_space_under_its_name_is_refused_with_the_difference(searched):
    place, _ = searched
    result = place.call("run", "space.yaml", "--set", "search.seed=9")
    assert result.returncode == 2
    assert "search.seed: 3 -> 9" in result.stderr
    assert "--name" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_status_and_list_tell_the_same_story(searched):
    place, _ = searched
    status = place.read("status", "cells")
    assert status["state"] == "finished"
    assert sum(status["trials"].values()) == 6
    assert place.read("list") == [status]
    assert "finished" in place.told("status", "cells")
    assert "cells" in place.told("list")


def test_the_page_stands_alone_with_all_its_plots(searched):
    place, _ = searched
    place.told("report", "cells")
    page = (place.folder / "searches/cells/report.html").read_text()
    for title in (
        "Leaderboard",
        "Learning curves",
        "Parallel coordinates",
        "Importances",
        "Timeline by slot",
        "Timeline by trial",
        "Classes on the test split",
        "Classes on the 9 validation images",
        "The least sure images",
        "Confusion on validation images",
    ):
        assert f"<h2>{title}" in page
    assert page.index("<h3>Best value by time</h3>") < page.index("<h2>")
    assert page.count('class="plot"') >= 6
    assert page.count('src="data:image/jpeg;base64,') >= 9
    assert len(page) < 5 * 2**20
    assert page.index(place.read("report", "cells")["verdict"]["sentence"]) < page.index("<h2>")
    assert not re.search(r'<script[^>]+src="http', page)


@pytest.fixture(scope="module")
def pages(searched):
    """The links that `ui` prints, by name, while it serves them."""
    place, _ = searched
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = place.start("ui", "--port", str(port))
    links = {}
    for line in process.stdout:
        name, _, address = line.strip().rpartition(": ")
        if address.startswith("http"):
            links[name] = address
        if "Default" in line:  # the last
            break
    yield links
    process.send_signal(signal.SIGTERM)
    process.communicate()


def in_a_browser(address, *, folder):
    """What a page has become after its scripts, and a picture of it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs a Chromium")
    picture = folder / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1600,1600"]
    options += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=60000"]
    result = subprocess.run(
        [browser, *options, f"--screenshot={picture}", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, np.asarray(Image.open(picture).convert("RGB"))


def test_the_printed_link_shows_every_trial_on_the_leaderboard_in_a_browser(searched, pages, tmp_path):
    place, _ = searched
    page, picture = in_a_browser(pages["cells: leaderboard"], folder=tmp_path)
    for trial in place.ledger().trials():
        assert f"{trial.number:03d} depth=" in page
    assert "best/balanced_accuracy" in page
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # a page, not a blank


def test_the_printed_link_shows_the_parallel_coordinates_of_all_trials_in_a_browser(searched, pages, tmp_path):
    place, _ = searched
    page, picture = in_a_browser(pages["cells: charts"], folder=tmp_path)
    assert "Parallel Coordinates" in page
    assert 'class="parcoords"' in page
    for trial in place.ledger().trials():
        assert f"{trial.number:03d} depth=" in page
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_search_goes_on_with_more_trials(searched):
    place, _ = searched
    before = place.ledger().trials()
    document = place.read("resume", "cells", "--trials", "7")
    assert document["status"] == "finished"
    trials = place.ledger().trials()
    assert trials[: len(before)] == before
    assert len([trial for trial in trials if trial.is_searched]) == 7
    assert not any(t.state == "RUNNING" for t in trials)


def test_an_unknown_name_is_one_line_with_the_nearest(searched):
    place, _ = searched
    result = place.run("resume", "cell")
    assert result.returncode == 2
    assert "did you mean 'cells'?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_plan_says_what_the_search_took(searched):
    place, _ = searched
    plan = place.read("plan", "space.yaml")
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
    assert plan["learnt"]["searches"] == 1
    told = place.told("plan", "space.yaml")
    assert "the search" in told
    assert re.search(r"earlier searches +1 here took \S+ times as long an epoch as planned", told)
    more = place.read("plan", "space.yaml", "--set", "search.confirm=2", "--set", "scheduler.audit=0.5")
    assert more["confirm_epochs"] == 8
    beside = place.read("plan", "space.yaml", "--set", "baselines=[scratch, linear_probe]")
    assert (plan["baseline_epochs"], beside["baseline_epochs"]) == (0, 4)
    assert plan["hours"]["least"] > 12 / 3600  # start and end
    assert more["epochs"] == plan["epochs"] + 8 + more["audit_epochs"] > plan["epochs"] + 8


def test_check_looks_at_the_images_without_decoding_them(searched):
    place, _ = searched
    assert "2 classes" in place.told("check", "space.yaml", "--data", "images")
    result = place.call("check", "space.yaml", "--data", "imags")
    assert result.returncode == 2
    assert "data.path: 'imags' does not exist" in result.stderr
