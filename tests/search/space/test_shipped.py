import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from search.space.lint import lint
from search.space.loading import load
from search.space.shipped import FAMILIES, USUAL, made_like, shipped_file, shipped_names, space_of_family
from trainable.errors import UserError

ROOT = Path(__file__).parents[3]
NAMES = [path.stem for path in sorted((ROOT / "spaces").glob("*.yaml"))]


def test_the_spaces_of_the_checkout_are_the_shipped_ones():
    assert shipped_names() == NAMES
    assert [shipped_file(name).resolve() for name in NAMES] == [ROOT / "spaces" / f"{name}.yaml" for name in NAMES]
    assert {USUAL, *FAMILIES.values()} <= set(NAMES)
    with pytest.raises(UserError, match="--like resnt: no shipped space, there are .*; did you mean 'resnet'"):
        shipped_file("resnt")


@pytest.mark.parametrize("name", NAMES)
def test_a_space_made_like_a_shipped_one_says_the_same_of_other_images(name, tmp_path):
    path = tmp_path / "mine.yaml"
    text, spec = made_like(name, path=path, data="my images")
    path.write_text(text)
    assert load(path) == spec == load(shipped_file(name), data="my images", name="mine")
    assert lint(load(path)) == []
    head = text.partition("\nsearch:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "# Varies " in head
    assert f"python -m search run {path}\n" in head
    assert text.count("\n  # ") >= len(spec.vary)  # each with what it does


def test_the_model_and_its_family_decide_what_is_begun_from(tmp_path):
    assert [
        space_of_family(model) for model in (None, "resnet18", "vit_tiny_patch16_224", "convnext_tiny.fb_in1k")
    ] == [
        "resnet",
        "resnet",
        "vit",
        "convnext",
    ]
    path = tmp_path / "mine.yaml"
    asked = {"model": "resnet18.a1_in1k", "minutes": 5, "overrides": ["optimizer.lr=1e-3"]}
    text, spec = made_like("quickstart", path=path, **asked)
    assert (spec.base["model.name"], spec.base["model.weights"]) == ("resnet18.a1_in1k", "pretrained")
    assert (spec.search.budget.minutes, spec.base["optimizer.lr"]) == (5, 1e-3)
    assert "optimizer.lr" not in spec.vary
    _, own = made_like("quickstart", path=path, model="resnet18", overrides=["model.weights=mine.safetensors"])
    assert own.base["model.weights"] == "mine.safetensors"
    assert text.startswith("# Fine-tune resnet18.a1_in1k on the images of the space.\n")


def test_the_environments_address_of_mlflow_stays_out_of_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "127.0.0.1" not in made_like("resnet", path=tmp_path / "mine.yaml")[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a wheel of the project holds, unpacked."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("search", "trainable"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "spaces", tree / "spaces")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = "from setuptools import build_meta; build_meta.build_wheel('wheels')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = (tree / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree / "installed")
    return tree / "installed"


def test_a_wheel_brings_the_spaces_and_a_program(installed, tmp_path):
    assert sorted(path.stem for path in installed.rglob("*.yaml")) == NAMES
    assert (installed / "search/spaces/vit.yaml").read_bytes() == (ROOT / "spaces/vit.yaml").read_bytes()
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert entry_points.read_text() == "[console_scripts]\nfinetune-search = search.cli.app:main\n"
    command = [sys.executable, "-m", "search", "new", "mine.yaml", "--like", "vit"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, check=True)
    assert load(tmp_path / "mine.yaml").base["model.name"] == "vit_base_patch16_224"
