"""A refresh as a run in MLflow."""

import math
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from search.ledger.refreshes import Record, Records
from search.space.spec import SearchSpec
from search.tracking.registry import store_errors_as_outages
from search.tracking.runs import open_experiment, source_tags
from search.tracking.uri import check_uri
from trainable.json_text import finite

KEY = "refresh.key"
LONGEST_TAG = 5000


def write_refresh_runs(spec: SearchSpec, *, folder: Path) -> None:
    """Bring the runs of all refreshes of the search in ``folder`` up to date. Raises StoreFailsError."""
    uri = check_uri(spec.tracking.uri)
    records = Records(folder)
    with store_errors_as_outages(uri):
        for record in records.all():
            if record.decision is not None:
                write_refresh_run(record, spec=spec, uri=uri, folder=records.folder)


def write_refresh_run(record: Record, *, spec: SearchSpec, uri: str, folder: Path) -> str:
    """Make the run that shows a refresh, or bring it up to date, and give its id. Raises what the store raises."""
    client = MlflowClient(uri)
    experiment = open_experiment(client, spec, uri=uri)
    wanted = f"tags.`{KEY}` = '{record.key}' and tags.`search.study` = '{spec.search.name}'"
    runs = client.search_runs([experiment], filter_string=wanted, max_results=1)
    if runs:
        run_id = runs[0].info.run_id
    else:
        tags = {**source_tags(folder), "search.kind": "refresh", "search.study": spec.search.name, KEY: record.key}
        run_id = client.create_run(experiment, run_name=f"refresh {record.number}", tags=tags).info.run_id
    decision = record.decision or {"kind": "open", "reasons": ()}
    texts = {
        "refresh.decision": decision["kind"],
        "refresh.reasons": "; ".join(decision["reasons"]),
        "refresh.difference": record.difference_text,
        "refresh.searches": ", ".join(record.searches),
        "data.fingerprint": record.fingerprint,
        "mlflow.note.content": f"**{decision['kind']}**: {'; '.join(decision['reasons'])}\n\n{record.difference_text}",
    }
    now = time.time_ns() // 1_000_000
    metrics = [Metric(name, value, now, 0) for name, value in _numbers(record).items() if math.isfinite(value)]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, text[:LONGEST_TAG]) for name, text in texts.items()])
    client.log_dict(run_id, finite(record.as_dict()), "refresh.json")
    client.set_terminated(run_id, status="FINISHED")
    return str(run_id)


def _numbers(record: Record) -> dict[str, float]:
    """What was measured, under names whose group is ``refresh``."""
    numbers: dict[str, Any] = {}
    for name in ("champion", "refit"):
        for key, value in (record.measured.get(name) or {}).items():
            numbers[f"refresh/{name}_{key}"] = value
    drift = record.measured.get("drift") or {}
    for name, drift_of_one in drift.get("features", {}).items():
        numbers |= {f"refresh/drift_{name}_{key}": drift_of_one[key] for key in ("effect", "p")}
    if record.difference is not None:
        numbers["refresh/added"] = sum(record.difference["added"].values())
        numbers["refresh/removed"] = sum(record.difference["removed"].values())
    return {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
