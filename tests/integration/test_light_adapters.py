"""A search over light adapters, from its space file to files that are served without them."""

import sys

import pytest
import yaml
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SPACE = {
    "search": {"name": "light", "trials": 4, "seed": 3, "constraints": {"model/parameters": 4e6}},
    "scheduler": {"min_epochs": 1, "max_epochs": 2, "reduction": 2, "finalists": 3},
    "resources": {"cpu": 1, "concurrency": 1},
    "soup": 3,
    "promote": {"model": "cells", "confirm": {"top": 1, "seeds": 1}, "max_ece": None},
    "base": {
        "data": {"path": "images", "image_size": 32},
        "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
        "train": {"batch_size": 8},
        "freeze": {"depth": 0.5},
    },
    "vary": {
        "finetune.strategy": {"choice": ["lora", "dora"]},
        "finetune.rank": {"choice": [2, 4]},
        "finetune.beside": {"choice": ["nothing", "norms"]},
        "optimizer.lr": {"log": [1e-3, 1e-2]},
    },
    "try_first": [{"finetune.strategy": "lora"}, {"finetune.strategy": "dora", "finetune.beside": "norms"}],
}


@pytest.fixture(scope="module")
def searched(make_place):
    pytest.importorskip("peft", reason="peft is not installed")
    place = make_place()
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    place.told("run", "space.yaml")
    return place


def test_trials_of_adapters_are_searched_averaged_measured_on_the_test_images_and_exported(searched, tmp_path):
    data = searched.read("report", "light")
    assert {row["params"]["finetune.strategy"] for row in data["leaderboard"]} == {"lora", "dora"}
    notes = searched.ledger("light").notes
    assert len(notes.soup.tried) == 3
    assert 0 <= notes.test.metrics["balanced_accuracy"] <= 1
    soup = load_file(searched.folder / "searches" / "light" / "soup" / "soup.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in soup)
    exported = searched.read("export", "light", "--to", "pt2", "--out", str(tmp_path / "out"))
    assert [row["name"] for row in exported["variants"]] == ["torch fp32", "pt2 fp32"]
    assert exported["variants"][1]["agreement"] == 1.0


@pytest.mark.long
def test_what_is_refitted_and_served_is_the_plain_network(searched):
    promoted = searched.call("promote", "light")
    assert promoted.returncode in (0, 3), promoted.stdout + promoted.stderr  # nine test images tell little
    assert "version 1" in promoted.stdout
    (package,) = (searched.folder / "searches" / "light" / "refits").rglob("package/weights.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in load_file(package))
    answers = searched.read("predict", "models:/cells/1", "images")
    assert len(answers) == 60


def test_without_the_library_nothing_is_begun(make_place, monkeypatch):
    place = make_place()
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    monkeypatch.setitem(sys.modules, "peft", None)
    for command in ("check", "run"):
        refused = place.call(command, "space.yaml")
        assert refused.returncode == 2
        assert "finetune.strategy: lora needs peft: pip install 'finetune-search[peft]'" in refused.stderr
    assert not (place.folder / "searches").exists()
