import inspect
import json
from math import inf, nan

import pytest

from search.cli import app, models, options, refreshes, searches
from trainable import __main__ as trial_commands
from trainable.json_text import to_json


def refuse(text):
    raise AssertionError(f"{text} is no JSON")


def test_numbers_that_are_not_finite_are_null_wherever_they_stand():
    document = {"a": inf, "b": [1.5, nan, {"c": -inf}], "d": (nan,), "e": "NaN", "f": None, "g": True}
    read = json.loads(to_json(document), parse_constant=refuse)
    assert read == {"a": None, "b": [1.5, None, {"c": None}], "d": [None], "e": "NaN", "f": None, "g": True}


def test_an_epoch_with_an_undefined_metric_is_a_line_of_json(capsys):
    trial_commands._print_metrics("epoch", 1, {"target/iwv": inf, "val/accuracy": 0.5}, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line, parse_constant=refuse) == {"epoch": 1, "target/iwv": None, "val/accuracy": 0.5}


@pytest.mark.parametrize("commands", [app, models, options, refreshes, searches, trial_commands])
def test_no_command_writes_json_by_another_way(commands):
    assert "json.dumps" not in inspect.getsource(commands)
    assert "console.print_json" not in inspect.getsource(commands)
