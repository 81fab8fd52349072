"""Searches as a notebook opens them, from real ledgers."""

import pytest
from optuna.distributions import FloatDistribution

from search.ledger import ledger as ledgers
from search.ledger.stored import SPEC_FILE
from search.notebook import load, run
from search.space.spec import SearchSpec
from trainable.errors import UserError

METRIC = "val/balanced_accuracy"


@pytest.fixture
def folder(tmp_path):
    """The folder of a search with three trials, the second of which is the best."""
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 3},
            "scheduler": {"min_epochs": 1, "max_epochs": 3},
            "base": {"data.path": "images"},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )
    notes = {"metric": METRIC, "spec": spec.model_dump(mode="json")}
    path = tmp_path / "cells"
    ledger = ledgers.create(path, name="cells", storage=None, space=spec.space, metric=METRIC, notes=notes)
    (path / SPEC_FILE).write_text(spec.model_dump_json())
    for number, values in enumerate([[0.4], [0.5, 0.7], []]):
        lr = FloatDistribution(1e-4, 1e-1, log=True)
        rate = {"optimizer.lr": 10.0 ** -(number + 1)}
        ledger.start(encoded=rate, distributions={"optimizer.lr": lr}, target=1, origin="random")
        for epoch, value in enumerate(values, start=1):
            ledger.record(number, epoch=epoch, metrics={METRIC: value, "val/loss": 1 - value, "usage/seconds": 2.0})
    return path


def test_trials_are_a_table_and_the_leaderboard_has_those_with_a_value_best_first(folder):
    opened = load("cells", folder=folder.parent)
    trials = opened.trials()
    assert trials.index.tolist() == [0, 1, 2]
    assert trials["optimizer.lr"].tolist() == pytest.approx([0.1, 0.01, 0.001])
    assert trials["seconds"].tolist() == [2.0, 4.0, 0.0]
    assert opened.leaderboard().index.tolist() == [1, 0]
    assert opened.leaderboard()[METRIC].tolist() == [0.7, 0.4]
    assert opened.report()["best_trial"] == 1
    assert repr(opened) == f"Search('cells', interrupted, {METRIC} 0.7000, trial 1)"


def test_epochs_are_a_table_by_trial_and_epoch(folder):
    epochs = load(folder).epochs()
    assert epochs.index.tolist() == [(0, 1), (1, 1), (1, 2)]
    assert epochs.loc[(1, 2), "val/loss"] == pytest.approx(0.3)


def test_the_figures_of_the_page_are_given_by_title(folder):
    assert {"Best value by time", "Learning curves"} <= load(folder).figures().keys()


def test_a_search_without_trials_has_empty_tables(tmp_path):
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "new", "trials": 3},
            "scheduler": {"max_epochs": 3},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )
    notes = {"metric": METRIC, "spec": spec.model_dump(mode="json")}
    ledgers.create(tmp_path / "new", name="new", storage=None, space=spec.space, metric=METRIC, notes=notes)
    (tmp_path / "new" / SPEC_FILE).write_text(spec.model_dump_json())
    opened = load("new", folder=tmp_path)
    assert [len(table) for table in (opened.trials(), opened.leaderboard(), opened.epochs())] == [0, 0, 0]
    assert opened.figures() == {}


def test_a_mistake_is_one_error_of_ours(folder, tmp_path):
    with pytest.raises(UserError, match="no search of this name"):
        load("cell", folder=folder.parent)
    with pytest.raises(UserError, match="is not finished"):
        _ = load(folder).best
    with pytest.raises(UserError, match="nowhere.yaml"):
        run(tmp_path / "nowhere.yaml")
