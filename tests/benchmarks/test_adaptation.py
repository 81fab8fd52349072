"""The table of adaptation methods asks for valid trials, goes on where it was cut off, and reads its runs rightly."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from trainable.config.trial import TrialConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "adaptation.py"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("adaptation_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["adaptation_table"] = module
    sys.path.insert(0, str(SCRIPT.parent))
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    yield module
    del sys.modules["adaptation_table"]


def epoch(table, *, selector, truth):
    """An epoch in which every selector has one value, by which it is the better the larger ``selector`` is."""
    signs = {name: 1 if table.DIRECTIONS[name] == "maximize" else -1 for name in table.SELECTORS}
    return {name: sign * selector for name, sign in signs.items()} | dict.fromkeys(
        (*table.TRUTHS, *table.CALIBRATION), truth
    )


def test_all_runs_are_valid_trials_that_differ_in_method_seed_and_direction_alone(table):
    wanted = list(table.wanted_runs(table.read_options([])))
    assert len(wanted) == 2 * 3 * len(table.METHODS)
    configs = [TrialConfig.model_validate(asked).model_dump() for asked in wanted]
    for config in configs:
        assert config["data"].pop("oracle")
        config.pop("adapt"), config.pop("seed"), config["data"].pop("source"), config["data"].pop("target")
    assert all(config == configs[0] for config in configs)


def test_what_is_in_the_file_is_not_trained_again(table, tmp_path):
    options = table.read_options(["--seeds", "1", "--runs", str(tmp_path / "runs.jsonl")])
    runs = [
        {"source": one["data"]["source"][0], "method": one["adapt"]["method"], "seed": 0, "asked": one, "epochs": []}
        for one in table.wanted_runs(options)
    ]
    options.runs.write_text("\n".join(map(json.dumps, reversed(runs))) + "\n")
    assert table.measure(options) == runs  # nothing could have been trained in so short a time


def test_a_selector_picks_by_its_own_value_and_is_scored_by_the_truth(table):
    runs = [
        {"method": "none", "seed": 0, "epochs": [epoch(table, selector=1.0, truth=0.5)]},
        {
            "method": "dann",
            "seed": 0,
            "epochs": [epoch(table, selector=2.0, truth=0.8), epoch(table, selector=0.5, truth=0.9)],
        },
    ]
    for name in (*table.SELECTORS, "mean rank of three"):
        method, metrics = table.pick(runs, seed=0, by=name)
        assert (method, metrics[table.TRUTHS[0]]) == ("dann", 0.8)
    assert table.pick(runs, seed=0, by=table.TRUTHS[1])[1][table.TRUTHS[0]] == 0.9
    assert table.agreed_with_truth(runs, seed=0, by="target/dev") == pytest.approx(-1 / 3)
    rows = table.selectors_table(runs).splitlines()
    assert rows[2] == "| val/balanced_accuracy | 80.0 ± 0.0 | 80.0 ± 0.0 | 0.80 | 0.80 | 0.80 | -0.33 | dann |"
    assert rows[-1] == "| *the oracle* | 90.0 ± 0.0 | 90.0 ± 0.0 | 0.90 | 0.90 | 0.90 | +1.00 | dann |"


def test_gains_over_source_only_are_paired_by_seed(table):
    runs = [
        {"method": method, "seed": seed, "epochs": [epoch(table, selector=0.7, truth=truth)]}
        for seed, (plain, adapted) in enumerate([(0.5, 0.6), (0.7, 0.9)])
        for method, truth in (("none", plain), ("mcc", adapted))
    ]
    rows = table.methods_table(runs).splitlines()
    assert rows[2] == "| none | 70.0 ± 0.0 | 60.0 ± 14.1 | 60.0 ± 14.1 |  | 0.60 | 0.60 | 0.60 |"
    assert rows[3] == "| mcc | 70.0 ± 0.0 | 75.0 ± 21.2 | 75.0 ± 21.2 | +15.0 ± 7.1 | 0.75 | 0.75 | 0.75 |"
