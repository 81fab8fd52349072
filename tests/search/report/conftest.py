import pytest
from optuna.distributions import FloatDistribution

from search.ledger import ledger as ledgers
from search.report.overview import SPEC_FILE
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"
LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}


@pytest.fixture
def make_search(tmp_path):
    """A search whose first rung is at epoch 3, with trials of these values by epoch: its folder, and its ledger."""

    def make(*trials, metric=METRIC, base=None):
        spec = SearchSpec.model_validate(
            {
                "search": {"name": "cells", "trials": 9, "metric": metric},
                "scheduler": {"min_epochs": 3, "max_epochs": 9},
                "base": base or {"data.path": "images"},
                "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
            }
        )
        notes = {"metric": metric, "spec": spec.model_dump(mode="json"), "data": {"fingerprint": "f" * 64}}
        ledger = ledgers.create(tmp_path, name="cells", storage=None, space=spec.space, metric=metric, notes=notes)
        (tmp_path / SPEC_FILE).write_text(spec.model_dump_json())
        for number, values in enumerate(trials):
            ledger.start(
                encoded={"optimizer.lr": 10.0 ** -(number % 4 + 1)}, distributions=LR, target=3, origin="random"
            )
            for epoch, value in enumerate(values, start=1):
                ledger.record(number, epoch=epoch, metrics={metric: value, "usage/seconds": 1.0})
        return tmp_path, ledger

    return make
