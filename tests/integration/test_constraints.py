"""A search among networks of which some are too large, through the command line."""

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


def test_too_large_a_network_is_never_trained_and_the_others_are_compared_by_what_they_take(make_place):
    place = make_place()
    place.write_space(
        search={"constraints": {"model/parameters": 500_000, "usage/latency_ms": 10_000}},
        vary={"model.head_hidden": {"choice": [16, 4096], "when": {"model.head": "mlp"}}},
        try_first=[{"model.head": "mlp", "model.head_hidden": 4096}, {"model.head": "mlp", "model.head_hidden": 16}],
    )
    place.told("run", "space.yaml", "--trials", "3")
    large, small, *_ = place.ledger().trials()
    assert (large.state, large.epochs) == ("FAILED", ())
    assert large.reason.startswith("search.constraints: model/parameters ")
    assert small.last_epoch > 0
    assert small.measured["model/parameters"] < 500_000 < large.measured["model/parameters"]
    assert 0 < small.measured["usage/latency_ms"] < 10_000
    fronts = place.read("report", "cells")["fronts"]
    assert fronts.keys() == {"seconds", "model/parameters", "usage/latency_ms"}
    assert all(row["trial"] != large.number for rows in fronts.values() for row in rows)
    assert "What the best takes" in (place.folder / "searches/cells/report.html").read_text()
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("cells")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`search.trial` = '0'")
    assert run.data.metrics["model/parameters"] == pytest.approx(large.measured["model/parameters"], rel=1e-5)
    assert run.info.status == "FAILED"
