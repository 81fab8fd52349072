"""The table of light adapters asks for valid trials of as many seconds, and reads its runs rightly."""

import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from search.space.paths import nest
from trainable.config.trial import TrialConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def adapters(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("adapters")
    sys.modules.pop("adapters", None)


def test_every_arm_is_a_valid_trial_that_differs_in_what_it_trains_alone(adapters):
    wanted = list(adapters.wanted_runs(adapters.read_options(["--seeds", "2"])))
    assert len(wanted) == 2 * len(adapters.ARMS)
    for asked in wanted:
        config = TrialConfig.model_validate(nest(asked["params"])).model_dump()
        for name in ("freeze", "finetune", "optimizer", "seed"):
            config.pop(name)
        assert config == TrialConfig.model_validate(
            nest({key: value for key, value in asked["params"].items() if key not in adapters.ARMS[asked["arm"]]})
        ).model_dump(exclude={"freeze", "finetune", "optimizer", "seed"})


@pytest.mark.parametrize(
    "arm",
    [
        "frozen",
        pytest.param(
            "lora, rank 2, last half",
            marks=pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed"),
        ),
    ],
)
def test_a_run_trains_and_is_scored_and_one_in_the_file_is_not_trained_again(adapters, cell_folder, tmp_path, arm):
    words = ["--data", str(cell_folder), "--model", "test_resnet", "--weights", "random", "--image-size", "32"]
    words += ["--seconds", "0.05", "--arms", arm, "--seeds", "1", "--runs", str(tmp_path / "runs.jsonl")]
    options = adapters.read_options(words)
    (asked,) = adapters.wanted_runs(options)
    run = adapters.train(asked)
    assert 0 <= run["balanced_accuracy"] <= 1
    assert run["epochs"] >= 1
    assert run["weights_bytes"] > 0
    options.runs.write_text(json.dumps(run) + "\n")
    assert adapters.measure(options) == [json.loads(json.dumps(run))]
    (row,) = adapters.table([run])[2:]
    assert row.startswith(f"| {arm} | {100 * run['balanced_accuracy']:.1f} ± 0.0 | ")


def test_the_table_has_means_over_seeds(adapters):
    one = {"asked": {"arm": "full"}, "balanced_accuracy": 0.7, "memory_bytes": 1e9, "seconds": 60, "epochs": 2}
    runs = [
        {**one, "validation": 0.7, "weights_bytes": 1000},
        {**one, "validation": 0.7, "weights_bytes": 3000, "balanced_accuracy": 0.8},
    ]
    assert adapters.table(runs)[2:] == ["| full | 75.0 ± 7.1 | 60 | 2 | 1000 | 2 |"]
