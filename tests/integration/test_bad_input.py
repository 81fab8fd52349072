"""Mistakes and mishaps, each met as a user meets it: one clear line, nothing lost."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from threading import Thread
from unittest.mock import patch

import pytest
import timm
import yaml
from safetensors.torch import save_file

from search.ledger.files import checkpoint_folder, epoch_folder
from search.ledger.notes import plain
from search.ledger.stored import stored_spec
from trainable import TrialConfig, fit

pytestmark = pytest.mark.slow


@pytest.fixture
def place(make_place):
    """A place whose images may be damaged."""
    place = make_place()
    own_images(place)
    place.write_space()
    return place


DIVERGING, GOOD = 10.0, 0.001  # learning rates


@pytest.fixture(scope="module")
def mishaps(make_place):
    """A search that met an unreadable image, a loss that is no number and an MLflow server that is down; what it said."""
    place = make_place()
    own_images(place)
    damaged = damage_an_image(place)
    space = {
        "search": {"name": "cells", "trials": 2},
        "scheduler": {"min_epochs": 2, "max_epochs": 4},
        "resources": {"cpu": 1, "concurrency": 1},
        "tracking": {"uri": "http://127.0.0.1:9"},
        "base": {
            "data": {"path": "images", "image_size": 32, "on_bad_image": "skip"},
            "model": {"name": "resnet10t", "weights": "random", "head": "mlp", "head_hidden": 64},
            "optimizer": {"name": "sgd", "momentum": 0.99, "weight_decay": 1.0},
            "train": {"batch_size": 8},
        },
        "vary": {"optimizer.lr": {"choice": [DIVERGING, GOOD]}},
    }
    (place.folder / "space.yaml").write_text(yaml.safe_dump(space))
    return place, damaged, place.succeed("run", "space.yaml")


@pytest.fixture
def finished(mishaps, place):
    """A copy of a finished search, to be damaged."""
    shutil.rmtree(place.folder)
    shutil.copytree(mishaps[0].folder, place.folder)
    return place


def own_images(place):
    """Makes the images of a place its own, so that they may be damaged."""
    real = (place.folder / "images").resolve()
    (place.folder / "images").unlink()
    shutil.copytree(real, place.folder / "images")


def damage_an_image(place):
    victim = sorted((place.folder / "images" / "functional").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:2000])
    return victim.name


def assert_trained_on_the_images(place):
    """Every epoch in the ledger is what its configuration gives on the images that are there."""
    with contextlib.chdir(place.folder), patch.dict(os.environ, place.environment):
        spec = stored_spec(place.folder / "searches/cells")
        for trial in place.ledger().trials():
            epochs = fit(TrialConfig.model_validate(spec.trial_config(spec.space.decoded(trial.params))))
            for recorded, again in zip(trial.epochs, epochs, strict=False):
                losses = {name: recorded.metrics[name] for name in ("train/loss", "val/loss")}
                assert losses == {name: again.metrics[name] for name in losses}


def refused(place, *words):
    """The one line of a run that is refused before anything is started."""
    return one_line(place.call("run", "space.yaml", *words), place)


def one_line(result, place, *, code=2):
    """The one line with which a command ended, with exit code 2 for a mistake."""
    assert result.returncode == code, result.stdout + result.stderr
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ")
    assert "Traceback" not in result.stdout + result.stderr
    assert not (place.folder / "searches/cells/ray").exists()
    return line


def test_a_folder_that_is_not_there(place):
    result = place.run("run", "space.yaml", "--data", "imagse")
    assert "data.path: 'imagse' does not exist" in one_line(result, place)


def test_a_class_without_images(place):
    (place.folder / "images" / "cracked").mkdir()
    assert "note: the folder 'cracked' has no images, and is no class" in place.told("check", "images")
    (place.folder / "images" / "cracked" / "scan.dcm").write_bytes(b"")  # an image, of a kind that is not read
    assert "class folder 'cracked' has no images; its files were left out: .dcm 1" in refused(place)


def test_one_class_only(place):
    shutil.rmtree(place.folder / "images" / "defective")
    assert "'functional' is the only class" in refused(place)


def test_labels_that_differ_between_splits(place):
    images = place.folder / "images"
    for split in ("train", "val"):
        shutil.copytree(images / "defective", images / split / "defective")
        shutil.copytree(images / "functional", images / split / ("functional" if split == "train" else "fine"))
    for name in ("defective", "functional"):
        shutil.rmtree(images / name)
    line = refused(place)
    assert "fine" in line or "functional" in line


def test_a_truncated_image_is_named(place):
    victim = damage_an_image(place)
    line = one_line(place.run("run", "space.yaml"), place)  # in a process of its own: Ray is starting by then
    assert victim in line
    assert "on_bad_image" in line


def test_a_truncated_image_is_left_out_when_asked(mishaps):
    _, damaged, result = mishaps
    assert "note: 1 image that cannot be decoded (left out), such as " in result.stdout
    assert damaged in result.stdout


def test_an_unknown_architecture_and_weights_of_another(place):
    assert "did you mean 'resnet10t'?" in refused(place, "--set", "model.name=resnet10")
    save_file(timm.create_model("resnet18").state_dict(), place.folder / "weights.safetensors")
    line = refused(place, "--set", "model.weights=weights.safetensors")
    assert "model.weights: weights.safetensors is of another architecture" in line


def test_more_gpus_than_there_are(place):
    assert "resources.gpu: 64 asked for a trial, this machine has" in refused(place, "--set", "resources.gpu=64")
    assert not (place.folder / "searches").exists()


def test_a_refused_run_leaves_no_search(place):
    refused(place, "--set", "tracking.uri=./mlruns")
    assert not (place.folder / "searches").exists()


def test_a_refused_run_changes_no_search(finished):
    place = finished
    stored = (place.folder / "searches/cells/search.json").read_bytes()
    images = sorted((place.folder / "images" / "functional").iterdir())
    shutil.move(images[0], place.folder / "images" / "defective")
    for words in (("run", "space.yaml", "--trials", "9"), ("resume", "cells")):
        result = place.call(*words)
        assert result.returncode == 1
        assert "data.path: the images have changed since this search began" in result.stderr
    result = place.call("resume", "cells", "--trials", "0")
    assert result.returncode == 2
    assert "search.trials: got 0, must be a whole number at least 1" in result.stderr
    assert (place.folder / "searches/cells/search.json").read_bytes() == stored


@pytest.mark.long
def test_a_search_killed_while_it_was_being_created_is_begun_again(finished):
    place = finished
    journal = place.folder / "searches/cells/ledger.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    for lines_left in (0, 2):
        journal.write_bytes(b"".join(lines[:lines_left]))
        result = place.call("status", "cells")
        assert result.returncode == (0 if lines_left else 2)
    place.told("resume", "cells")
    assert len(place.ledger().trials()) == 2


def test_what_a_search_is_stands_before_its_ledgers_first_line(place):
    place.kill_when(lambda: place.lines() > 0, "run", "space.yaml")
    assert (place.folder / "searches/cells/search.json").is_file()


@pytest.mark.parametrize(
    ("address", "said", "code"),
    [
        ("127.0.0.1:1", "--address: nothing answers at '127.0.0.1:1'", 1),
        ("ray://127.0.0.1:1", "--address: a search cannot be driven through a Ray client", 2),
        ("head", "--address: got 'head', must be auto or host:port", 2),
    ],
)
def test_a_cluster_that_is_not_there(place, address, said, code):
    assert said in one_line(place.call("run", "space.yaml", "--address", address), place, code=code)


def test_a_loss_that_is_no_number_fails_its_trial_and_the_search_goes_on(mishaps):
    place, _, _ = mishaps
    trials = {trial.params["optimizer.lr"]: trial for trial in place.ledger().trials()}
    assert trials[DIVERGING].state == "FAILED"
    assert trials[DIVERGING].reason.startswith("diverged: the loss became")
    assert trials[GOOD].state == "COMPLETE"
    report = place.read("report", "cells")
    assert report["leaderboard"][0]["trial"] == trials[GOOD].number
    assert report["best_trial"] == trials[GOOD].number


def test_a_full_disk_stops_the_search_with_one_line_and_nothing_is_lost(place):
    disk = place.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        place.write_space(soup=0, scheduler={"max_epochs": 2})
        (place.folder / "searches/cells").mkdir(parents=True)
        (place.folder / "searches/cells/checkpoints").symlink_to(disk)
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 898 * 2**20)
        result = place.run("run", "space.yaml", "--trials", "2")
        assert result.returncode == 1, result.stdout + result.stderr
        assert "the disk is full; free space, then resume" in result.stderr
        assert "python -m search resume cells" in result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        assert not list(disk.rglob("*.part"))
        ballast.unlink()
        place.told("resume", "cells")
        assert {trial.state for trial in place.ledger().trials()} == {"COMPLETE", "PRUNED"}
        assert sum(trial.attempts for trial in place.ledger().trials()) == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_images_that_arrive_during_a_search_stop_it_and_are_not_trained_on(place):
    place.write_space(search={"trials": 2}, soup=0, scheduler={"max_epochs": 2})
    added = place.folder / "images" / "functional" / "new.png"
    content = min(added.parent.iterdir()).read_bytes() + b"\0"

    def add_when_an_epoch_is_saved():
        while not epoch_folder(checkpoint_folder(place.folder / "searches/cells", 0), 1).exists():
            time.sleep(0.01)
        added.write_bytes(content)

    Thread(target=add_when_an_epoch_is_saved, daemon=True).start()
    result = place.call("run", "space.yaml")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "error: data.path: the images have changed since this search began (fingerprint " in result.stderr
    assert "python -m search resume cells" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert {trial.state for trial in place.ledger().trials()} <= {"RUNNING", "COMPLETE", "PRUNED"}
    added.unlink()
    facts = place.ledger().notes.data
    older = {key: value for key, value in plain(facts).items() if key != "fingerprints"}
    place.ledger().note(data=older)
    place.told("resume", "cells")
    assert place.ledger().notes.data == facts
    assert_trained_on_the_images(place)


def test_an_mlflow_server_that_is_down_stops_nothing_and_the_rest_is_written_later(mishaps):
    place, _, result = mishaps
    assert "python -m search sync cells" in result.stdout + result.stderr
    assert len(place.ledger().trials()) == 2


def test_a_command_without_its_words_is_helped():
    result = subprocess.run([sys.executable, "-m", "search", "run"], capture_output=True, text=True, env=os.environ)
    assert result.returncode == 2
    assert "Missing argument 'space'" in result.stderr.replace("SPACE", "space")
