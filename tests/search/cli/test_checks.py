"""The command `check`, called as a user calls it, on images and on space files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def call(tmp_path):
    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "search", "check", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def space(tmp_path):
    document = {
        "search": {"name": "mine", "trials": 1},
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "base": {"data": {"path": "images"}, "model": {"name": "test_resnet", "weights": "random"}},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(document))
    return "space.yaml"


def test_images_are_checked_by_their_path_alone(call, draw_folder):
    draw_folder({"cat": 6, "dog": 6})
    done = call("images")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "images: read as folder",
        "  12 images of 2 classes",
        "  splits: train 8, val 2, test 2 (val and test cut by data.split_seed)",
        "  classes: cat 6, dog 6",
        "good; what to search: python -m search diagnose images --out spaces/mine.yaml",
    ]


def test_every_mistake_in_images_is_a_line_and_the_code_is_2(call, draw_folder):
    root = draw_folder({"cat": 6, "dog": 6, "owl": 1})
    (root / "cat" / "bad.png").write_bytes(b"no image")
    done = call("images")
    assert done.returncode == 2
    assert "good" not in done.stdout
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        "error: data.path: 1 class with too few images",
        "error: data.path: 1 image that cannot be decoded",
    ]
    kept = call("images", "--set", "data.rare=train_only", "--set", "data.on_bad_image=skip")
    assert (kept.returncode, kept.stderr) == (0, "")


def test_a_check_as_json_has_the_whole_report(call, draw_folder):
    root = draw_folder({"cat": 6, "dog": 6})
    shutil.copy(root / "cat/0.png", root / "dog/again.png")
    (result,) = json.loads(call("images", "--json").stdout)
    report = result["data"]["report"]
    assert (report["files"], report["used"], report["bad"], report["left_out"]) == (13, 13, 0, {})
    (finding,) = report["findings"]
    assert (finding["kind"], finding["count"]) == ("in_two_classes", 1)
    assert finding["examples"] == ["'cat/0.png' (cat) and 'dog/again.png' (dog)"]


def test_what_cannot_be_reported_on_is_a_document_too_and_does_not_hide_the_next(call, draw_folder):
    draw_folder({"cat": 6, "dog": 6})
    draw_folder({"cells/images": 3, "cells/masks": 3})
    done = call("images/cells", "nowhere", "images/cat", "--json")
    assert done.returncode == 2
    results = json.loads(done.stdout)
    assert [result["file"] for result in results] == ["images/cells", "nowhere", "images/cat"]
    lines = [line for result in results for line in result["mistakes"]]
    assert [line.split(",")[0] for line in lines] == [
        "data.path: masks/ holds files of the same names as images/",
        "data.path: 'nowhere' does not exist",
        "data.path: 'images/cat' has no class folders",
    ]
    assert done.stderr.splitlines() == [f"error: {line}" for line in lines]


def test_the_next_step_has_what_was_set_and_quotes_what_a_shell_would_part(call, draw_folder, tmp_path):
    draw_folder({"cat": 6, "dog": 6, "owl": 1}).rename(tmp_path / "my images")
    done = call("my images", "--set", "data.rare=drop")
    step = "python -m search diagnose 'my images' --set data.rare=drop --out spaces/mine.yaml"
    assert done.stdout.splitlines()[-1] == f"good; what to search: {step}"


def test_a_space_is_good_only_where_its_images_are(call, draw_folder, space):
    draw_folder({"cat": 6, "dog": 6})
    done = call(space)
    assert done.returncode == 0
    assert done.stdout.startswith("space.yaml: good, 1 values varied\n")
    assert "  12 images of 2 classes\n" in done.stdout
    draw_folder({"owl": 1})
    done = call(space)
    assert done.returncode == 2
    assert "good" not in done.stdout
    assert done.stderr.startswith("error: data.path: 1 class with too few images")
    assert call(space, "--set", "data.rare=drop").returncode == 0


def test_images_that_are_not_there_are_said_not_to_be_looked_at(call, space):
    done = call(space, "--set", "model.weights=pretrained")
    assert done.returncode == 0
    assert "note: the images are not looked at: there is no 'images' here; --data names them" in done.stdout
    assert re.search(r"^  weights: test_resnet.r160_in1k: .*, .*\d MB; licence apache-2.0$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("images", "--data", "other"), "error: check images: --data and --trials go with a space file, a .yaml"),
        (("images", "--set", "model.name=resnet18"), "error: --set model.name: the check of images takes data.…"),
        (("images", "--set", "data.rare=dorp"), "error: data.rare: "),
        (("imags",), "error: data.path: 'imags' does not exist; did you mean 'images'?"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(call, draw_folder, words, line):
    draw_folder({"cat": 6, "dog": 6})
    done = call(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
