"""The benchmark of many short trials writes a space that is good, and reads a driver at work on real nodes."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from search.space.loading import load

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("scale")
    sys.modules.pop("scale", None)


@pytest.mark.parametrize("scheduler", ["asha", "freeze_thaw", "none"])
def test_its_space_is_good_and_has_a_slot_for_every_cpu(scale, tmp_path, scheduler):
    options = argparse.Namespace(trials=40, nodes=2, cpus=3, scheduler=scheduler)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(scale.space_of(options)))
    spec = load(tmp_path / "space.yaml")
    assert (spec.search.trials, spec.resources.concurrency, spec.scheduler.name) == (40, 6, scheduler)


def test_a_database_that_is_not_there_yet_has_no_runs(scale, tmp_path):
    assert scale.runs_in(tmp_path / "mlflow.db") == 0
    (tmp_path / "mlflow.db").touch()
    assert scale.runs_in(tmp_path / "mlflow.db") == 0


@pytest.mark.long
def test_a_few_trials_on_two_nodes_are_a_table():
    command = [sys.executable, str(FOLDER / "scale.py"), "--trials", "12", "--nodes", "2", "--cpus", "1"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0] == "| 2 nodes of 1 CPUs | |"
    assert lines[2].startswith("| trials, epochs | 12, ")
