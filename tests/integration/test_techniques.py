"""A search with baselines, a choice of backbones, techniques of every kind and a soup, through the command line."""

import pytest
import yaml

from search.ledger.notes import plain

pytestmark = pytest.mark.slow

SPACE = {
    "search": {"name": "cells", "trials": 4, "seed": 3},
    "scheduler": {"min_epochs": 1, "max_epochs": 2, "reduction": 2, "finalists": 2},
    "resources": {"cpu": 1, "concurrency": 1},
    "baselines": ["linear_probe", "stage_probes", "scratch"],
    "probes": ["logreg", "ridge"],
    "select_backbones": {"keep": 1, "by": "h_score"},
    "base": {
        "data": {"path": "images", "image_size": 32, "early_size": 24, "early_epochs": 1},
        "model": {"weights": "random"},
        "train": {"ema": 0.2, "batch_size": 64, "min_updates": 4},
    },
    "vary": {
        "model.name": {"choice": ["resnet10t", "tf_efficientnet_lite0"]},
        "model.weights": {"choice": ["package:efficientnet-lite0"], "when": {"model.name": "tf_efficientnet_lite0"}},
        "finetune.strategy": {"choice": ["norm_only", "lp_ft", "gradual", "two_stage"]},
        "loss.name": {"choice": ["ce", "focal"]},
        "optimizer.lr": {"log": [1e-3, 1e-2]},
    },
    "try_first": [{"model.name": "resnet10t"}, {"finetune.strategy": "norm_only", "optimizer.lr": 5e-3}],
}
NOTES = ("backbones", "baselines", "soup", "test", "comparison")


def write(place):
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return place


@pytest.fixture(scope="module")
def unbroken(make_place):
    place = write(make_place())
    result = place.call("run", "space.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    (place.folder / "output.txt").write_text(result.stdout + result.stderr)
    return place


def notes_of(place):
    notes = {key: plain(getattr(place.ledger().notes, key)) for key in NOTES}
    for score in notes["backbones"]["scores"].values():
        assert score.pop("seconds_per_image") > 0  # by the clock, as nothing else here
    return notes


def test_the_report_shows_the_arms_the_backbones_and_the_soup(unbroken):
    data = unbroken.read("report", "cells")
    assert {"linear_probe", "probe_stage1", "probe_stage4", "probe_pooled_ridge", "scratch"} <= set(data["baselines"])
    assert all(1 <= row["epochs_to_converge"] <= row["epochs"] for row in data["leaderboard"])
    assert unbroken.ledger().notes.environment["torch"]
    assert data["backbones"]["kept"] == ["tf_efficientnet_lite0"]
    searched = [row for row in data["leaderboard"] if "finetune.solver" not in row["params"]]  # else a probe
    assert {row["params"]["model.name"] for row in searched} == {"tf_efficientnet_lite0"}
    text = unbroken.told("report", "cells")
    assert "backbone resnet10t: logme" in text
    assert "left out" in text
    assert "Backbones: probe against cost" in (unbroken.folder / "searches/cells/report.html").read_text()
    assert "transfer gain over training from scratch: " in text
    assert "train.batch_size: 64 is lowered to " in (unbroken.folder / "output.txt").read_text()


def test_the_soup_is_never_the_candidate_unless_it_beats_its_best_trial(unbroken):
    data, soup = unbroken.read("report", "cells"), notes_of(unbroken)["soup"]
    assert soup["of"][0] == data["best_trial"]
    assert soup["kept"] == (len(soup["members"]) > 1 and soup["value"] > data["best_value"])
    assert notes_of(unbroken)["test"]["soup"] == (soup["members"] if soup["kept"] else None)
    assert (unbroken.folder / "searches/cells/soup/soup.safetensors").is_file()


def test_the_final_candidate_is_compared_with_the_probe_and_the_trained_baseline(unbroken):
    data, noted = unbroken.read("report", "cells"), unbroken.ledger().notes.comparison
    values = data["baseline_values"]
    probes = {name for name in noted.others if name.startswith(("linear", "probe"))}
    assert probes
    assert {"scratch", *probes} <= set(noted.asked)
    measured = {name: score.value for name, score in noted.others.items() if name in values}
    assert measured == pytest.approx({name: values[name] for name in measured}, abs=0.06)  # as kept in float16
    assert noted.own_size == 224
    assert data["verdict"]["sentence"] == data["verdict"]["lines"][0].removeprefix("verdict: ")
    assert any(line.startswith("resolution, images of 32 pixels") for line in data["verdict"]["limits"])


@pytest.mark.long
def test_killed_between_its_steps_it_ends_the_same(unbroken, make_place):
    place = write(make_place())
    place.kill_when(lambda: place.lines() >= 30, "run", "space.yaml")
    place.told("resume", "cells")
    assert notes_of(place) == notes_of(unbroken)


def test_the_weights_of_steps_before_the_search_are_choices_in_it(make_place):
    place = make_place()
    images, small = str(place.folder / "images"), {"weights": "random", "path": str(place.folder / "images")}
    space = {
        "search": {"name": "cells", "trials": 2, "seed": 0},
        "scheduler": {"name": "none", "max_epochs": 1},
        "resources": {"cpu": 1, "concurrency": 1},
        "soup": 0,
        "ssl": {"method": "simclr", "epochs": 1, "batch_size": 16, **small},
        "meta": {"ways": 2, "shots": 2, "queries": 2, "updates": 2, "report_every": 1, **small},
        "base": {"data": {"path": images, "image_size": 32}, "model": {"name": "resnet10t"}},
        "vary": {"model.weights": {"choice": ["ssl", "meta"]}},
    }
    (place.folder / "space.yaml").write_text(yaml.safe_dump(space))
    place.told("run", "space.yaml")
    data = place.read("report", "cells")
    assert set(data["steps"]) == {"ssl", "meta"}
    assert {row["params"]["model.weights"] for row in data["leaderboard"]} == {"ssl", "meta"}
    assert data["best_config"]["model.weights"].endswith("/backbone.safetensors")
    del space["meta"]
    (place.folder / "space.yaml").write_text(yaml.safe_dump(space))
    refused = place.call("check", "space.yaml")
    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: space.yaml: meta: missing, model.weights: meta needs it"
