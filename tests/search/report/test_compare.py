"""Two searches side by side."""

import pytest
from optuna.distributions import FloatDistribution
from rich.console import Console

from search.ledger import ledger as ledgers
from search.ledger.stored import SPEC_FILE
from search.report.compare import compare_searches, comparison_lines, comparison_table
from search.space.loading import load
from search.space.paths import defaults
from trainable.errors import UserError

METRIC = "val/balanced_accuracy"


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two finished searches that differ in their seed, their rate, and their images."""
    monkeypatch.chdir(tmp_path)
    folders = []
    for name, seed, rate, value, fingerprint in (("one", 0, 1e-3, 0.8, "aaaa"), ("two", 1, 3e-3, 0.9, "bbbb")):
        (tmp_path / "space.yaml").write_text(
            f"search: {{name: {name}, trials: 1, seed: {seed}}}\n"
            "scheduler: {max_epochs: 3}\nbase: {data: {path: images}}\nvary: {optimizer.lr: {log: [1e-4, 1e-2]}}\n"
        )
        spec, folder = load("space.yaml"), tmp_path / "searches" / name
        notes = {"spec": spec.model_dump(mode="json"), "data": {"fingerprint": fingerprint}, "finished": True}
        notes["test"] = {"metrics": {"accuracy": value - 0.1}, "reads": 1, "trial": 0, "per_class": {}}
        ledger = ledgers.create(folder, name=name, storage=None, space=spec.space, metric=METRIC, notes=notes)
        distributions = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}
        number = ledger.start(encoded={"optimizer.lr": rate}, distributions=distributions, target=3, origin="random")
        ledger.record(number, epoch=1, metrics={METRIC: value, "usage/seconds": 60.0}, ended="last epoch")
        ledger.end(number, state="COMPLETE", reason="last epoch")
        (folder / SPEC_FILE).write_text(spec.model_dump_json())
        folders.append(folder)
    return folders


def test_every_figure_stands_beside_the_others(two):
    console = Console(width=120, record=True)
    console.print(comparison_table(compare_searches(two)))
    text = console.export_text()
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("best value")] == [["0.8", "0.9"]]
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("test/accuracy")] == [["0.7", "0.8"]]


def test_a_value_that_one_search_does_not_name_is_its_default(two):
    text = (two[1] / SPEC_FILE).read_text()
    (two[1] / SPEC_FILE).write_text(text.replace('"data.path":', '"train.batch_size": 16, "data.path":'))
    found = compare_searches(two)
    assert found["best_values"]["train.batch_size"] == [defaults()["train.batch_size"], 16]


def test_only_values_that_differ_are_named(two):
    found = compare_searches(two)
    assert found["best_values"] == {"optimizer.lr": [1e-3, 3e-3], "seed": [0, 1]}
    assert found["settings"] == {"one -> two": ["search.seed: 0 -> 1"]}


def test_other_images_are_a_warning(two):
    warnings = [line for line in comparison_lines(compare_searches(two)) if line.startswith("warning")]
    assert warnings == ["warning: the images are not the same, so neither validation nor test values can be compared"]


def test_an_unknown_search_is_one_line(two, tmp_path):
    with pytest.raises(UserError, match="did you mean 'two'"):
        compare_searches([two[0], tmp_path / "searches" / "twoo"])
