"""What is said of kinds of training, from made trainings; the trainings themselves are hours of fine-tuning."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def fidelities(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("fidelities")
    for name in ("fidelities", "make_curves", "compare", "search_tables"):
        sys.modules.pop(name, None)


def test_a_kind_is_said_to_rank_as_the_first_does_or_not_and_what_it_takes_and_loses(fidelities):
    kinds, size, depth = fidelities.KINDS, fidelities.SIZE, fidelities.DEPTH
    first = [0.5, 0.7, 0.9]
    values = {str(kind): first for kind in kinds} | {str(kinds[1]): [0.6, 0.8, 0.7], str(kinds[2]): [0.9, 0.8, 0.7]}
    lines = [
        {
            "params": {**kind, "optimizer.lr": number},
            "val/balanced_accuracy": [0.1, values[str(kind)][number]],
            "seconds": float(kind[size]),
        }
        for number in range(3)
        for kind in kinds
    ]
    _, _, *rows = fidelities.table(lines)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [[str(kind[size]), f"{kind[depth]:g}"] for kind in kinds]
    assert cells[0][2:] == ["128", "1.00", "0.000"]
    assert cells[1][2:] == ["96", "0.50", "0.200"]
    assert cells[2][2:] == ["64", "-1.00", "0.400"]
