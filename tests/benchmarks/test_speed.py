"""The benchmark of speed switches off what there is, and its table says how many times longer each side took."""

import importlib
import sys
from pathlib import Path

import pytest

from trainable.config.trial import TrialConfig
from trainable.config.validation import leaf_fields

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("speed")
    for name in ("speed", "compare"):
        sys.modules.pop(name, None)


def test_what_is_switched_off_is_there_and_on(speed):
    defaults = leaf_fields(TrialConfig)
    for settings in speed.WITHOUT.values():
        for setting in settings:
            path, _, value = setting.partition("=")
            assert str(defaults[path].default).lower() != value


def test_every_mix_has_shares_of_layers(speed):
    assert all(0 <= depth <= 1 for depths in speed.MIXES.values() for depth in depths)
    assert min(speed.MIXES["deep"]) == 0.5
    assert speed.MIXES["head"] == [1.0]


def test_the_table_says_how_many_times_ours_each_side_took(speed, capsys):
    ours = {"wall_seconds": 10.0, "cpu_seconds": 20.0, "epochs": 5, "first_report_seconds": 3.0, "best": 0.5}
    speed.print_table("head", {"ours": ours, "stock": ours | {"wall_seconds": 150.0, "cpu_seconds": 90.0}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["times", "ours,", "wall", "1.00", "15.00"]
    assert lines[-1].split() == ["times", "ours,", "CPU", "1.00", "4.50"]
