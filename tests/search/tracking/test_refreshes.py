"""A refresh as a run in MLflow."""

import shutil
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from search.ledger.refreshes import Record, Records
from search.space.spec import SearchSpec
from search.tracking.refreshes import write_refresh_run, write_refresh_runs
from search.tracking.uri import StoreFailsError

RECORD = Record(
    number=1,
    key="0123456789abcdef",
    identity={},
    fingerprint="f" * 32,
    code="1",
    began="2026-11-21T12:00:00+00:00",
    difference_text="100 -> 110 images",
    difference={"added": {"a": 4, "b": 6}, "removed": {}},
    measured={
        "champion": {"value": 0.9, "level": 0.95, "low": None, "num_images": 10},
        "drift": {"features": {"all": {"effect": 0.1, "p": 0.5}}},
    },
)
DECIDED = replace(RECORD, decision={"kind": "skip", "reasons": ["too few", "too old"]}, searches=("cells.1",))


@pytest.fixture
def spec(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 4},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
            "base": {"data.path": "images"},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def test_a_refresh_is_one_run_however_often_it_is_written(spec, tmp_path):
    uri = spec.tracking.uri
    first = write_refresh_run(RECORD, spec=spec, uri=uri, folder=tmp_path)
    assert write_refresh_run(DECIDED, spec=spec, uri=uri, folder=tmp_path) == first
    run = MlflowClient(uri).get_run(first)
    assert (run.info.run_name, run.info.status) == ("refresh 1", "FINISHED")
    assert run.data.tags["search.kind"] == "refresh"
    assert run.data.tags["refresh.decision"] == "skip"
    assert run.data.tags["refresh.reasons"] == "too few; too old"
    assert run.data.tags["refresh.searches"] == "cells.1"


def test_what_was_measured_are_its_metrics(spec, tmp_path):
    run_id = write_refresh_run(DECIDED, spec=spec, uri=spec.tracking.uri, folder=tmp_path)
    assert MlflowClient(spec.tracking.uri).get_run(run_id).data.metrics == {
        "refresh/champion_value": 0.9,
        "refresh/champion_level": 0.95,
        "refresh/champion_num_images": 10,
        "refresh/drift_all_effect": 0.1,
        "refresh/drift_all_p": 0.5,
        "refresh/added": 10,
        "refresh/removed": 0,
    }


def test_all_that_have_decided_are_written(spec, tmp_path):
    records = Records(tmp_path / "cells")
    records.save(RECORD, state="superseded")
    records.save(replace(DECIDED, number=2, key="f" * 16))
    write_refresh_runs(spec, folder=tmp_path / "cells")
    client = MlflowClient(spec.tracking.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`search.kind` = 'refresh'")
    assert [run.data.tags["refresh.key"] for run in runs] == ["f" * 16]


def test_a_store_that_cannot_be_reached_is_named(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Records(tmp_path / "cells").save(DECIDED)
    tracking = spec.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})
    with pytest.raises(StoreFailsError, match="tracking.uri: http://127.0.0.1:9 fails"):
        write_refresh_runs(spec.model_copy(update={"tracking": tracking}), folder=tmp_path / "cells")
