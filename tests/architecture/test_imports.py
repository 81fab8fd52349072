import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy", "pandas")


def python(program, folder=ROOT):
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}  # no contract's name is broken
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def lint_imports(folder):
    return python(
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))", folder
    )


def test_imports_point_the_way_the_design_lists():
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("trainable/metrics.py", "import ray", "trainable knows nothing of searches"),
        ("search/ledger/trials.py", "from search.engine import conductor", "the rooms of search"),
        ("search/report/compare.py", "from search.promotion import card", "the rooms of search"),
        ("trainable/data/pack.py", "from trainable.loader import views", "the rooms of trainable"),
        ("trainable/model/layer_plan.py", "from trainable.model import network", "no circle of imports"),
        ("search/space/values.py", "from search.space.space import dimension", "no circle of imports"),
        ("search/space/lint.py", "from search.engine import sampling", "a space file is read, checked and judged"),
        ("search/report/domains.py", "from search.run import baselines", "searches are shown and compared without"),
        ("search/engine/halving.py", "import ray", "the door of Ray"),
        ("search/engine/conductor.py", "import optuna", "the door of Optuna"),
        ("search/engine/conductor.py", "import mlflow", "the door of MLflow"),
        ("search/engine/conductor.py", "import torch", "the door of torch"),
        ("trainable/metrics.py", "import timm", "the door of timm"),
        ("trainable/model/network.py", "import peft", "the door of peft"),
        ("trainable/training/solving.py", "import open_clip", "the door of open_clip"),
        ("search/engine/conductor.py", "import yaml", "the door of YAML"),
    ],
)
def test_an_import_the_other_way_is_caught(module, line, contract, tmp_path):
    for name in ("search", "trainable"):
        for source in (ROOT / name).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / module).write_text((tmp_path / module).read_text() + f"\n{line}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    broken = [row for row in found.stdout.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), found.stdout


def test_reading_a_space_file_loads_no_heavy_library():
    found = python(
        f"import sys, search.space.loading, search.space.lint; print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    )
    assert found.stdout == "[]\n", found.stderr


def test_the_command_line_loads_no_heavy_library():
    heavy = {*HEAVY, "sklearn", "plotly", "pyarrow"}
    found = python(f"import sys, search.cli.app; print(sorted({heavy!r} & set(sys.modules)))")
    assert found.stdout == "[]\n", found.stderr


def test_a_search_is_driven_without_what_computes_or_draws():
    computes = {"torch", "torchvision", "timm", "sklearn", "mlflow", "plotly"}
    modules = "search.run.search, search.tune.tuner, search.tracking.tracker, search.report.progress"
    found = python(f"import sys, {modules}; print(sorted({computes!r} & set(sys.modules)))")
    assert found.stdout == "[]\n", found.stderr


def test_what_workers_are_forked_from_has_loaded_what_computes_but_neither_ray_nor_what_few_trials_need():
    found = python(
        "import sys; from importlib import import_module; from search.tune.nursery import LOADED\n"
        "for module in LOADED: import_module(module)\n"
        "print([name for name in ('torch', 'timm', 'ray', 'optuna', 'sklearn', 'mlflow') if name in sys.modules])"
    )
    assert found.stdout == "['torch', 'timm']\n", found.stderr


def test_showing_searches_loads_nothing_that_trains_them():
    trains = {"torch", "torchvision", "timm", "ray", "mlflow"}
    found = python(
        f"import sys, search.report.compare, search.report.progress; print(sorted({trains!r} & set(sys.modules)))"
    )
    assert found.stdout == "[]\n", found.stderr


def test_parquet_and_arrow_files_are_opened_by_one_file():
    opening = re.compile(
        r"\.(read_table|read_schema|read_metadata|ParquetFile|ParquetDataset|read_feather|read_parquet|ipc\.open_\w+)\("
    )
    sources = [path for tree in ("search", "trainable") for path in sorted((ROOT / tree).rglob("*.py"))]
    found = [str(path.relative_to(ROOT)) for path in sources if opening.search(path.read_text())]
    assert found == ["trainable/data/readers/arrow_files.py"]


def test_files_are_written_by_one_file_but_in_folders_that_are_new():
    writing = re.compile(r"\.(write_text|write_bytes)\(|open\([^)\n]*\"[wax]b?\"")
    sources = [path for tree in ("search", "trainable") for path in sorted((ROOT / tree).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)) for path in sources if writing.search(path.read_text())}
    in_new_folders = {
        "trainable/deploy/tensorrt.py",
        "trainable/serving/package.py",
        "trainable/training/checkpoint.py",
    }
    assert found == {"trainable/atomic.py", *in_new_folders}
