"""The GPU's benchmark measures all it says, on a CPU in miniature, and finds what must be equal equal."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.long
def test_a_miniature_of_all_of_it_runs_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--quick", "--models", "test_resnet", "--images", "24", "--out", str(out)]
    printed = subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True, text=True).stdout
    found = json.loads(out.read_text())
    rows = found["rows"]
    expected = {"training": 7, "kept = live": 3, "views": 2, "views = CPU's": 2, "epoch": 2, "side by side": 3}
    assert Counter(row["what"] for row in rows) == expected
    assert all(row["holds"] for row in rows if "holds" in row)
    assert all(row["images/s"] > 0 for row in rows if "images/s" in row)
    assert [row["frozen part"] for row in rows if row.get("mode") == "kept"] == ["read"] * 3
    assert [row["trials"] for row in rows if row["what"] == "side by side"] == [1, 2, 4]
    assert found["numerics"]["amp"] == "off"
    assert sum(line.startswith(tuple(expected)) for line in printed.splitlines()) == len(rows)
