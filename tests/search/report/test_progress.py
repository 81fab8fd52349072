"""What is printed of a search at work, off a terminal."""

import io

from optuna.distributions import CategoricalDistribution
from rich.console import Console

from search.engine.schedulers import scheduler_rule
from search.ledger import ledger as ledgers
from search.ledger.notes import DataFacts
from search.report.progress import Progress
from search.space.spec import SearchSpec

SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 1},
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "vary": {"model.weights": {"choice": ["weights [edited].pt", "random"]}},
    }
)


def test_names_with_brackets_are_printed_whole(tmp_path):
    ledger = ledgers.create(tmp_path, name="cells", storage=None, space=SPEC.space, metric=SPEC.search.metric, notes={})
    line = "1 image that cannot be decoded (left out), such as 'a/photo [edited].png'"
    ledger.note(data=DataFacts(report={"findings": [{"line": line}]}))
    text = io.StringIO()
    progress = Progress(Console(file=text, soft_wrap=True, width=240))
    progress.begin(ledger, spec=SPEC, rule=scheduler_rule(SPEC))
    assert f"note: {line}\n" in text.getvalue()
    distributions = {"model.weights": CategoricalDistribution(("weights [edited].pt", "random"))}
    ledger.start(
        encoded={"model.weights": "weights [edited].pt"}, distributions=distributions, target=1, origin="random"
    )
    progress.changed(ledger.trial(0))
    assert "model.weights=weights [edited].pt\n" in text.getvalue()
