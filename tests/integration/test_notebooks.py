"""The notebooks of docs/, cell by cell, as somebody runs them who has the demo's images."""

import json
from pathlib import Path

import pytest

from search.notebook import load

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs"


def run_cells(name):
    """Run every cell of code; what its names stand for at the end."""
    names = {}
    for cell in json.loads((DOCS / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}.ipynb", "exec"), names)
    return names


def test_the_first_hour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_cells("first_hour")
    assert names["report"]["state"] == "finished"
    assert "balanced_accuracy" in names["report"]["test"]
    assert "Learning curves" in names["figures"]
    assert len(names["found"].best.predict(names["cells"])) == 4


def test_adapting_to_a_new_domain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_cells("new_domain")
    assert names["report"]["state"] == "finished"
    assert set(names["metrics"]) <= set(load("new-domain").epochs().columns)
    assert "Domains before and after (t-SNE)" in names["figures"]


@pytest.mark.parametrize("name", ["first_hour", "new_domain"])
def test_a_notebook_holds_no_output_of_a_machine(name):
    document = json.loads((DOCS / f"{name}.ipynb").read_text())
    assert document["nbformat"] == 4
    assert all(not cell["outputs"] for cell in document["cells"] if cell["cell_type"] == "code")
