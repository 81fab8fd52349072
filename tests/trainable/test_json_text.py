import inspect
import json
from math import inf, isnan, nan
from pathlib import Path

import pytest

from search.cli import app, models, options, refreshes, searches
from trainable import __main__ as trial_commands
from trainable.json_text import finite, restorable, restored, to_json

ROOT = Path(__file__).parents[2]
# Modules that write JSON of their own, none of it with measured numbers in it, by what it is.
OTHER_JSON = {
    "what is hashed into a key": """
        search/space/spec.py search/ledger/refreshes.py trainable/prefix/key.py trainable/data/pack_builder.py
        trainable/data/fingerprint.py trainable/training/soup.py search/promotion/candidate.py
        trainable/diagnosis/backbone_score.py
    """,
    "a setting as text": """
        search/space/dimension.py search/space/reference.py search/space/writing.py search/diagnosis/space_file.py
        trainable/config/validation.py search/tracking/projection.py search/promotion/predict.py
    """,
    "names in the header of a file of tensors": """
        trainable/pretraining/resumable.py trainable/deploy/onnx.py trainable/deploy/pt2.py
    """,
    "names of processes, versions and views": """
        search/ledger/lease.py search/tracking/registry.py search/tracking/ui.py search/tracking/views.py
        search/tune/cluster.py search/tune/worker_entry.py
    """,
}


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


def test_what_is_read_again_has_its_numbers_that_are_not_finite():
    document = {"a": inf, "b": [-inf, {"c": nan}], "d": "inf", "e": 1.5, "f": None, "g": "number", "h": 3}
    text = to_json(restorable(document))
    read = restored(json.loads(text, parse_constant=refuse))
    assert isnan(read["b"][1].pop("c"))
    assert read == {"a": inf, "b": [-inf, {}], "d": "inf", "e": 1.5, "f": None, "g": "number", "h": 3}


def test_what_a_library_writes_as_json_has_none_of_them():
    written = json.dumps(finite({"a": [inf], "b": nan}), allow_nan=False)
    assert written == '{"a": [null], "b": null}'


def test_measured_numbers_are_written_through_this_module_alone():
    """Whoever calls json.dumps stands in a list with the reason; so a new file of numbers is seen."""
    listed = {module for modules in OTHER_JSON.values() for module in modules.split()}
    found = {
        str(path.relative_to(ROOT))
        for tree in ("search", "trainable")
        for path in (ROOT / tree).rglob("*.py")
        if "json.dump" in path.read_text() and path.name != "json_text.py"
    }
    assert found == listed
