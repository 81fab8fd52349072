"""The driver's benchmark plays searches of the sizes it is asked for, and leaves a kept ledger as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "driver.py"


@pytest.mark.slow
def test_each_size_is_a_row_and_a_ledger_that_is_kept_is_measured_again(tmp_path):
    command = [sys.executable, str(SCRIPT), "--trials", "20", "--decisions", "6", "--ledgers", str(tmp_path)]
    rows = run(command)
    assert [row[0] for row in rows] == ["20"]
    assert all(float(cell) > 0 for row in rows for cell in row[2:3] + row[4:])
    written = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.journal"))}
    assert len(written) == 1
    run(command)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.journal"))} == written


def run(command):
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
