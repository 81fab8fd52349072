"""Real searches through the command line, each in a folder of its own."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
import yaml

from search.cli import app
from search.ledger.stored import open_ledger

ACTOR_TITLES = ("ray::TrialActor", "ray::ResourceTrainable")  # Ray shows one or the other
SPACE = {
    "search": {"name": "cells", "trials": 6, "seed": 3},
    "scheduler": {"min_epochs": 1, "max_epochs": 4, "reduction": 2},
    "resources": {"cpu": 1, "concurrency": 1},
    "base": {
        "data": {"path": "images", "image_size": 32},
        "model": {"name": "test_resnet", "weights": "random"},
        "augment": {"strength": "light"},
    },
    "vary": {
        "optimizer.lr": {"log": [1e-4, 1e-1]},
        "freeze.depth": {"choice": [0, 0.5, 1.0]},
        "model.head": {"choice": ["linear", "mlp"]},
        "model.head_hidden": {"int": [16, 64], "when": {"model.head": "mlp"}},
    },
}


@dataclass(frozen=True)
class Place:
    """A folder with images in which commands are run."""

    folder: Path

    def write_space(self, **sections):
        """The small space, with these sections' values changed."""
        changed = {name: SPACE.get(name, {}) | new if isinstance(new, dict) else new for name, new in sections.items()}
        (self.folder / "space.yaml").write_text(yaml.safe_dump(SPACE | changed))
        return "space.yaml"

    @property
    def environment(self):
        return {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def start(self, *words):
        """``python -m search …`` as a process of its own."""
        environment = os.environ | {**self.environment, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "search", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_when(self, happened, *words):
        """Starts a command and kills it, at work still, as soon as something has happened."""
        process = self.start(*words)
        while process.poll() is None and not happened():
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()

    def lines(self, name="cells"):
        """How much has been written to a search's ledger."""
        journal = self.folder / "searches" / name / "ledger.journal"
        return journal.read_bytes().count(b"\n") if journal.is_file() else 0

    def run(self, *words, timeout=240):
        process = self.start(*words)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def succeed(self, *words):
        result = self.run(*words)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    def call(self, *words):
        """The same command in this process, which has the heavy libraries already: a process of its own loads them anew."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.chdir(self.folder),
            patch.dict(os.environ, self.environment),
            patch.object(sys, "argv", ["search", *words]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                app.main()
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def told(self, *words):
        """What a command tells, called in this process."""
        result = self.call(*words)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def read(self, *words):
        """The document that a command tells, called in this process; NaN and Infinity, which are no JSON, are not taken."""

        def refuse(text):
            raise AssertionError(f"{text} is no JSON")

        return json.loads(self.told(*words, "--json"), parse_constant=refuse)

    def ledger(self, name="cells"):
        return open_ledger(self.folder / "searches" / name)[1]

    def children(self, driver, titles=ACTOR_TITLES):
        """The processes of a driver with one of these titles, else those that train; between two legs there may be none."""
        found = []
        for process in psutil.Process(driver.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())
                found += [process] if any(name in title for name in titles) else []
        return found

    def epochs(self, trial):
        """A trial's epochs with everything measured but time and memory."""
        return [(e.number, {k: v for k, v in e.metrics.items() if not k.startswith("usage/")}) for e in trial.epochs]

    def outcome(self, name="cells"):
        """All that the search came to: its trials with every epoch, and notes; nothing of time, memory or failures."""
        ledger = self.ledger(name)
        trials = [
            (
                trial.number,
                dict(trial.params),
                trial.state,
                trial.target,
                trial.origin,
                trial.reason,
                self.epochs(trial),
            )
            for trial in ledger.trials()
        ]
        return trials, {key: getattr(ledger.notes, key) for key in ("data", "test", "metric")}


@pytest.fixture(scope="session")
def make_place(tmp_path_factory, cells_for_search, empty_database):
    """A function that makes a place; its MLflow database has its tables unless it is ``bare``."""

    def make(*, bare=False):
        folder = tmp_path_factory.mktemp("place")
        (folder / "images").symlink_to(cells_for_search)
        if not bare:
            shutil.copy(empty_database, folder / "mlflow.db")
        return Place(folder)

    return make


@pytest.fixture(scope="session")
def unbroken(make_place):
    """The outcome of the small search that nothing happened to."""
    place = make_place()
    place.write_space()
    place.told("run", "space.yaml")
    return place.outcome()


@pytest.fixture(scope="session")
def cells_for_search(tmp_path_factory):
    """60 real solar cells in two classes, told apart by the package's own defect probability."""
    from importlib.util import find_spec

    root = tmp_path_factory.mktemp("images")
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    defective = [line[0] for line in lines if float(line[1]) == 1.0][:25]
    functional = [line[0] for line in lines if float(line[1]) == 0.0][:35]
    for name, paths in (("defective", defective), ("functional", functional)):
        (root / name).mkdir()
        for path in paths:
            shutil.copy(data / path, root / name)
    return root
