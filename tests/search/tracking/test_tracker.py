"""The projection of real ledgers to real MLflow stores: SQLite files, and a server on loopback."""

import json
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from search.engine.listeners import Outcome
from search.engine.schedulers import scheduler_rule
from search.ledger import ledger as ledgers
from search.ledger.files import checkpoint_folder, epoch_folder
from search.ledger.lease import lease
from search.space.paths import defaults
from search.space.spec import SearchSpec
from search.tracking.classes import class_files
from search.tracking.tracker import Tracker, sync_ledger
from search.tracking.views import views
from trainable.errors import OutageError, UserError

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

METRIC = "val/accuracy"
FINGERPRINT = "9c1d" * 16
RECIPES = [
    {"freeze.depth": 0.5, "optimizer.lr": 0.001, "optimizer.name": "adamw"},
    {"freeze.depth": 0.25, "optimizer.lr": 0.01, "optimizer.name": "sgd", "optimizer.momentum": 0.5},
    {"freeze.depth": 0.75, "optimizer.lr": 0.1, "optimizer.name": "adamw"},
]


def make_spec(uri, **tracking):
    return SearchSpec.model_validate(
        {
            "search": {"name": "pets-1", "metric": METRIC, "trials": 3},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "tracking": {"uri": uri, **tracking},
            "base": {"data.path": "/images/pets", "train.batch_size": 16},
            "vary": {
                "freeze.depth": {"uniform": [0.0, 1.0]},
                "optimizer.lr": {"log": [1e-5, 1e-1]},
                "optimizer.name": {"choice": ["adamw", "sgd"]},
                "optimizer.momentum": {"uniform": [0.0, 0.9], "when": {"optimizer.name": "sgd"}},
            },
        }
    )


def new_ledger(folder, spec):
    facts = {"fingerprint": FINGERPRINT, "classes": ["cat", "dog"], "counts": {"train": {"cat": 30, "dog": 40}}}
    notes = {"metric": METRIC, "spec": spec.model_dump(mode="json"), "data": facts}
    return ledgers.create(folder, name=spec.search.name, storage=None, space=spec.space, metric=METRIC, notes=notes)


def start(ledger, spec, recipe):
    distributions = {path: _distribution(spec.space.dimensions[path]) for path in recipe}
    return ledger.start(encoded=spec.space.encoded(recipe), distributions=distributions, target=3, origin="random")


def _distribution(dimension):
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if hasattr(dimension, "members"):
        return CategoricalDistribution(dimension.members)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def train(ledger, number, accuracies, *, first=1):
    for epoch, accuracy in enumerate(accuracies, start=first):
        ledger.record(number, epoch=epoch, metrics={"train/loss": 1 / epoch, METRIC: accuracy, "usage/seconds": 2.0})


@pytest.fixture
def database(tmp_path, empty_database):
    return shutil.copy(empty_database, tmp_path / "mlflow.db")


@pytest.fixture
def uri(database):
    return f"sqlite:///{database}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The search's folder; the project's own is the current one, so that ``searches`` lies in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "searches" / "pets-1"


@pytest.fixture
def spec(uri):
    return make_spec(uri)


def three_trials(folder, spec):
    """One trial of each kind of end: the first is the best."""
    ledger = new_ledger(folder, spec)
    for recipe in RECIPES:
        start(ledger, spec, recipe)
    train(ledger, 0, [0.5, 0.8, 0.7])
    train(ledger, 1, [0.6])
    train(ledger, 2, [0.9])
    ledger.end(0, state="COMPLETE", reason="trained to the end")
    ledger.end(1, state="PRUNED", reason="not among the best 1/3 at epoch 1")
    ledger.end(2, state="FAILED", reason="diverged: loss is nan")
    return ledger


def begun(ledger, spec, *, deadline=60.0):
    tracker = Tracker(deadline_seconds=deadline)
    tracker.begin(ledger, spec=spec, rule=scheduler_rule(spec))
    return tracker


def project(ledger, spec, *, status="finished", deadline=60.0):
    tracker = begun(ledger, spec, deadline=deadline)
    tracker.end(ledger, outcome=Outcome(status, "", Path()))
    return tracker


def stored(uri, experiment="pets-1"):
    """Everything of an experiment's runs by trial or baseline, ``None`` for the parent, ids left out."""
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    content = {}
    for run in runs:
        key = key_of(run)
        assert key not in content, "two runs of one trial"
        content[key] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "time": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"},
            "metrics": {name: history(client, run, name) for name in run.data.metrics},
            "data": [(used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs],
        }
    return content


def key_of(run):
    return run.data.tags.get("search.trial", run.data.tags.get("search.baseline"))


def history(client, run, name):
    return sorted((one.step, one.value, one.timestamp) for one in client.get_metric_history(run.info.run_id, name))


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def run_ids(uri, experiment="pets-1"):
    client = client_of(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {key_of(run): run.info.run_id for run in found}


def values(run, name):
    return [(step, value) for step, value, _ in run["metrics"][name]]


def test_a_search_is_one_parent_with_one_child_a_trial(folder, spec, uri):
    project(three_trials(folder, spec), spec)
    ids = run_ids(uri)
    assert set(ids) == {None, "0", "1", "2"}
    for number in "012":
        assert client_of(uri).get_run(ids[number]).data.tags["mlflow.parentRunId"] == ids[None]
    experiment = client_of(uri).get_experiment_by_name("pets-1")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "[charts](/#/experiments/" in experiment.tags["mlflow.note.content"].splitlines()[0]


def test_a_child_holds_the_trials_values_and_the_parent_what_no_trial_changes(folder, spec, uri):
    project(three_trials(folder, spec), spec)
    runs = stored(uri)
    params = runs["1"]["params"]
    short = {name: value for name, value in params.items() if not name.startswith("cfg.")}
    assert short == {
        "depth": "0.25",
        "lr": "0.01",
        "log10_lr": "-2",
        "optimizer.name": "sgd",
        "momentum": "0.5",
    }
    exact = {name.removeprefix("cfg."): value for name, value in params.items() if name.startswith("cfg.")}
    assert exact == {
        "freeze.depth": "0.25",
        "optimizer.lr": "0.01",
        "optimizer.name": "sgd",
        "optimizer.momentum": "0.5",
    }
    (path,) = Path(client_of(uri).download_artifacts(run_ids(uri)[None], "")).glob("configuration.yaml")
    fixed = yaml.safe_load(path.read_text())
    assert (fixed["train.batch_size"], fixed["train.epochs"], fixed["train.patience"]) == (16, 9, None)
    assert fixed.keys() | exact.keys() == defaults().keys()
    assert not fixed.keys() & exact.keys()
    assert "momentum" not in runs["0"]["params"]
    assert runs["0"]["name"] == "000 depth=0.5 lr=0.001 optimizer.name=adamw"
    assert runs["0"]["data"] == [("pets@9c1d9c1d", FINGERPRINT[:36])]
    assert runs[None]["data"] == [("pets@9c1d9c1d", FINGERPRINT[:36])]


def test_a_childs_metrics_are_the_ledgers_by_epoch(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    run = stored(uri)["0"]
    assert set(run["metrics"]) == {"train/loss", METRIC, "usage/seconds", "best/accuracy"}
    assert values(run, METRIC) == [(1, 0.5), (2, 0.8), (3, 0.7)]
    assert values(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 0.333333)]
    assert values(run, "best/accuracy") == [(0, 0.5), (0, 0.8)]
    recorded = [round(epoch.recorded.timestamp() * 1000) for epoch in ledger.trial(0).epochs]
    assert [time for _, _, time in run["metrics"][METRIC]] == recorded
    latest = client_of(uri).get_run(run_ids(uri)["0"]).data.metrics
    assert latest["best/accuracy"] == 0.8


def test_status_tags_and_colour_tell_how_a_trial_ended(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    runs = stored(uri)
    assert {key: run["status"] for key, run in runs.items()} == {
        None: "FINISHED",
        "0": "FINISHED",
        "1": "FINISHED",
        "2": "FAILED",
    }
    assert [runs[key]["tags"]["search.state"] for key in "012"] == ["COMPLETE", "PRUNED", "FAILED"]
    assert [runs[key]["tags"].get("search.best") for key in "012"] == ["true", None, None]
    assert [runs[key]["tags"].get("mlflow.runColor") for key in "012"] == [None, "#9e9e9e", None]
    assert runs["2"]["tags"]["search.reason"] == "diverged: loss is nan"
    assert runs["2"]["tags"]["search.origin"] == "random"
    assert [runs[key]["tags"]["search.rung"] for key in "012"] == ["3", "1", "1"]
    assert runs["1"]["time"][1] == round(ledger.trial(1).ended.timestamp() * 1000)


def test_the_parent_holds_progress_baselines_test_score_and_description(folder, spec, uri):
    ledger = three_trials(folder, spec)
    ledger.note(baselines={"linear_probe": {"metrics": {"accuracy": 0.61}}})
    ledger.note(test={"trial": 0, "epoch": 2, "metrics": {"accuracy": 0.78, "ece": 0.0412345678}})
    project(ledger, spec)
    parent = stored(uri)[None]
    assert parent["name"] == "pets-1"
    assert values(parent, "best/accuracy") == [(1, 0.8), (2, 0.8), (3, 0.8)]
    assert values(parent, "linear_probe/accuracy") == [(0, 0.61)]
    assert values(parent, "test/accuracy") == [(0, 0.78)]
    assert values(parent, "test/ece") == [(0, 0.0412346)]
    tags = parent["tags"]
    assert (tags["search.kind"], tags["search.study"], tags["search.state"]) == ("study", "pets-1", "finished")
    assert tags["search.folder"] == str(folder)
    assert tags["mlflow.source.type"] == "LOCAL"
    assert "best: val/accuracy 0.8000, trial 0" in tags["mlflow.note.content"]
    told = tags["mlflow.note.content"]
    assert told.startswith("- verdict: better than the linear probe by 19.0 points (not compared image by image)")
    assert (tags["search.verdict"] in told, tags["search.verdict_kind"]) == (True, "unmeasured")
    assert "`python -m search promote pets-1`" in told
    assert "resume" not in told  # nothing is left to go on with


def test_a_baseline_is_a_run_of_its_own_with_a_line_in_the_chart(folder, spec, uri):
    ledger = three_trials(folder, spec)
    probe = {"metrics": {"accuracy": 0.61, "loss": 0.9}, "measured": {"usage/seconds": 3.0}}
    ledger.note(baselines={"probe_stage3": probe, "source_only": {"metrics": {}}})
    project(ledger, spec)
    run = stored(uri)["probe_stage3"]
    assert (run["name"], run["status"], run["tags"]["search.kind"]) == (
        "baseline: probe_stage3",
        "FINISHED",
        "baseline",
    )
    assert values(run, METRIC) == [(1, 0.61), (9, 0.61)]
    assert (values(run, "val/loss"), values(run, "best/accuracy")) == ([(0, 0.9)], [(0, 0.61)])
    assert stored(uri)["source_only"]["metrics"] == {}
    before = stored(uri)
    project(ledger, spec)
    assert stored(uri) == before
    ledger.note(baselines={"probe_stage3": {"metrics": {"accuracy": 0.7}}})
    project(ledger, spec)
    assert values(stored(uri)["probe_stage3"], METRIC)[-1] == (9, 0.7)
    shown = views(spec.space, metric=METRIC, study="pets-1", search_id=run["tags"]["search.id"])[0].state[
        "searchFilter"
    ]
    experiment = client_of(uri).get_experiment_by_name("pets-1").experiment_id
    found = client_of(uri).search_runs([experiment], filter_string=shown)
    assert {key_of(run) for run in found} == {"0", "1", "2", "probe_stage3", "source_only"}


def test_a_finished_searchs_page_lies_with_its_run(folder, spec, uri):
    ledger = three_trials(folder, spec)

    def page():
        (at_hand,) = Path(client_of(uri).download_artifacts(run_ids(uri)[None], "")).glob("report.html")
        return at_hand.read_text()

    (folder / "report.html").write_text("<p>first é")
    project(ledger, spec, status="interrupted")
    with pytest.raises(ValueError, match="not enough values"):
        page()
    project(ledger, spec)
    assert page() == "<p>first é"
    (folder / "report.html").write_text("<p>second")
    project(ledger, spec)
    assert page() == "<p>second"


def test_a_kept_trials_classes_lie_with_its_run_when_the_search_is_finished(folder, spec, uri):
    ledger = three_trials(folder, spec)
    checkpoint = epoch_folder(checkpoint_folder(folder, 0), 2)  # of its best epoch
    checkpoint.mkdir(parents=True)
    shutil.copy(checkpoint_state(folder), checkpoint)

    def tables(trial):
        client, run = client_of(uri), run_ids(uri)[trial]
        names = [file.path for file in client.list_artifacts(run)]
        return {name: Path(client.download_artifacts(run, name)).read_text() for name in names}

    project(ledger, spec, status="interrupted")
    assert tables("0") == {}
    project(ledger, spec)
    assert tables("0") == class_files(checkpoint)
    assert tables("1") == {}


def checkpoint_state(folder):
    """A checkpoint's state with what the classes came to."""
    rows = {
        "cat": {"recall": 0.5, "precision": 1.0, "f1": 2 / 3, "count": 2},
        "dog, big": {"recall": 1.0, "precision": 0.75, "f1": 6 / 7, "count": 3},
    }
    document = {"results": {"evaluation": {"metrics": {}, "per_class": rows, "confusion": [[1, 1], [0, 3]]}}}
    file = folder / "state.json"
    file.write_text(json.dumps(document))
    return file


def test_a_search_that_is_not_tested_yet_has_no_verdict_and_says_how_to_go_on(folder, spec, uri):
    project(three_trials(folder, spec), spec)
    tags = stored(uri)[None]["tags"]
    assert tags["search.verdict"] == "none yet"
    assert "python -m search resume pets-1" in tags["mlflow.note.content"]


def test_projecting_twice_changes_nothing(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    before, ids = stored(uri), run_ids(uri)
    project(ledger, spec)
    assert stored(uri) == before
    assert run_ids(uri) == ids


def test_a_deleted_database_is_made_again_equal(folder, spec, uri, database, empty_database):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    before = stored(uri)
    another = database.with_name("another.db")
    shutil.copy(empty_database, another)
    moved = make_spec(f"sqlite:///{another}")
    project(ledgers.open_existing(folder, name="pets-1", storage=None, space=spec.space), moved)
    assert stored(moved.tracking.uri) == before


def test_what_is_reported_bit_by_bit_equals_what_is_projected_at_once(folder, spec, uri, database, empty_database):
    ledger = new_ledger(folder, spec)
    tracker = begun(ledger, spec)
    for recipe, accuracies in zip(RECIPES, ([0.5, 0.6], [0.7, 0.65], [0.1, 0.2]), strict=True):
        number = start(ledger, spec, recipe)
        for epoch, accuracy in enumerate(accuracies, start=1):
            train(ledger, number, [accuracy], first=epoch)
            tracker.changed(ledger.trial(number))
            time.sleep(0.3)
        ledger.end(number, state="COMPLETE", reason="trained to the end")
        tracker.changed(ledger.trial(number))
    tracker.end(ledger, outcome=Outcome("finished", "", folder))
    another = database.with_name("another.db")
    shutil.copy(empty_database, another)
    project(ledger, make_spec(f"sqlite:///{another}"))
    assert stored(uri) == stored(f"sqlite:///{another}")


def test_the_mark_of_the_best_moves(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    number = start(ledger, spec, RECIPES[2])
    train(ledger, number, [0.95])
    ledger.end(number, state="COMPLETE", reason="trained to the end")
    project(ledger, spec)
    best = [key for key, run in stored(uri).items() if run["tags"].get("search.best") == "true"]
    assert best == ["3"]


def test_values_that_are_not_finite_are_left_out(folder, spec, uri):
    ledger = new_ledger(folder, spec)
    number = start(ledger, spec, RECIPES[0])
    ledger.record(number, epoch=1, metrics={"train/loss": math.nan, "val/loss": math.inf, METRIC: 0.5})
    ledger.end(number, state="COMPLETE", reason="trained to the end")
    tracker = project(ledger, spec)
    assert set(stored(uri)["0"]["metrics"]) == {METRIC, "best/accuracy"}
    assert "not written" not in " ".join(tracker.closing_lines())


def test_a_run_made_before_a_kill_is_adopted(folder, spec, uri):
    ledger = new_ledger(folder, spec)
    project(ledger, spec, status="interrupted")
    parent = client_of(uri).get_run(run_ids(uri)[None])
    start(ledger, spec, RECIPES[0])
    train(ledger, 0, [0.5])
    tags = {
        "search.id": parent.data.tags["search.id"],
        "search.kind": "trial",
        "search.trial": "0",
        "mlflow.parentRunId": parent.info.run_id,
    }
    made = client_of(uri).create_run(parent.info.experiment_id, tags=tags)
    project(ledger, spec, status="interrupted")
    assert run_ids(uri) == {None: parent.info.run_id, "0": made.info.run_id}
    assert values(stored(uri)["0"], METRIC) == [(1, 0.5)]


def test_a_second_run_left_by_a_lost_answer_is_removed(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    before = stored(uri)
    ids = run_ids(uri)
    first = client_of(uri).get_run(ids["0"])
    tags = {"search.id": first.data.tags["search.id"], "search.kind": "trial", "search.trial": "0"}
    client_of(uri).create_run(first.info.experiment_id, tags=tags)
    project(ledger, spec)
    assert run_ids(uri) == ids
    assert stored(uri) == before


def test_an_interrupted_search_is_killed_and_goes_on_in_the_same_runs(folder, spec, uri):
    ledger = new_ledger(folder, spec)
    start(ledger, spec, RECIPES[0])
    train(ledger, 0, [0.5])
    tracker = begun(ledger, spec)
    _wait_for(lambda: _statuses(uri) == {None: "RUNNING", "0": "RUNNING"})
    tracker.end(ledger, outcome=Outcome("interrupted", "", folder))
    ids = run_ids(uri)
    assert _statuses(uri) == {None: "KILLED", "0": "KILLED"}

    tracker = begun(ledger, spec)
    _wait_for(lambda: _statuses(uri) == {None: "RUNNING", "0": "RUNNING"})
    train(ledger, 0, [0.6, 0.7], first=2)
    ledger.end(0, state="COMPLETE", reason="trained to the end")
    tracker.changed(ledger.trial(0))
    tracker.end(ledger, outcome=Outcome("finished", "", folder))
    assert run_ids(uri) == ids
    assert _statuses(uri) == {None: "FINISHED", "0": "FINISHED"}
    assert values(stored(uri)["0"], METRIC) == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_a_run_the_store_refuses_holds_up_no_other(folder, spec, uri):
    ledger = new_ledger(folder, spec)
    project(ledger, spec, status="interrupted")
    parent = client_of(uri).get_run(run_ids(uri)[None])
    tags = {"search.id": parent.data.tags["search.id"], "search.kind": "trial", "search.trial": "0"}
    made = client_of(uri).create_run(parent.info.experiment_id, tags=tags)
    client_of(uri).log_param(made.info.run_id, "lr", "another value")
    tracker = project(three_trials(folder, spec), spec)
    runs = stored(uri)
    assert [runs[key]["status"] for key in (None, "1", "2")] == ["FINISHED", "FINISHED", "FAILED"]
    assert "1 of 3 trials are not written" in tracker.closing_lines()[0]


def test_two_searches_of_one_experiment_keep_apart(folder, uri):
    spec = make_spec(uri, experiment="pets")
    project(three_trials(folder, spec), spec)
    shutil.rmtree(folder)
    project(three_trials(folder, spec), spec)
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("pets").experiment_id])
    assert len(runs) == 8
    assert len({run.data.tags["search.id"] for run in runs}) == 2


def test_a_run_deleted_by_hand_is_made_again(folder, spec, uri):
    ledger = three_trials(folder, spec)
    project(ledger, spec)
    before = stored(uri)
    client_of(uri).delete_run(run_ids(uri)["1"])
    project(ledger, spec)
    assert stored(uri) == before


def test_a_long_history_is_written_whole(folder, spec, uri):
    ledger = new_ledger(folder, spec)
    number = start(ledger, spec, RECIPES[0])
    for epoch in range(1, 31):
        ledger.record(number, epoch=epoch, metrics={f"val/class_{index}": 0.5 for index in range(60)})
    ledger.end(number, state="COMPLETE", reason="trained to the end")
    project(ledger, spec)
    run = stored(uri)["0"]
    assert [len(run["metrics"][f"val/class_{index}"]) for index in (0, 59)] == [30, 30]


def test_sync_writes_what_is_missing_and_kills_what_is_open(folder, spec, uri):
    ledger = three_trials(folder, spec)
    start(ledger, spec, RECIPES[0])
    line = sync_ledger(spec, folder=folder)
    assert line.startswith(f"pets-1: 4 trials are in {uri}, http://127.0.0.1:5000/#/experiments/")
    runs = stored(uri)
    assert (runs["0"]["status"], runs["3"]["status"], runs[None]["status"]) == ("FINISHED", "KILLED", "KILLED")
    ledgers.open_existing(folder, name="pets-1", storage=None, space=spec.space).end(3, state="PRUNED", reason="closed")
    ledger.note(finished=True)
    sync_ledger(spec, folder=folder)
    runs = stored(uri)
    assert (runs["3"]["status"], runs[None]["status"]) == ("FINISHED", "FINISHED")


def test_sync_refuses_a_search_at_work(folder, spec):
    three_trials(folder, spec)
    program = (
        "import sys; from pathlib import Path; from search.ledger.lease import lease\n"
        "with lease(Path(sys.argv[1])): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline()
        with pytest.raises(OutageError, match="being run by process"):
            sync_ledger(spec, folder=folder)
        holder.communicate(b"\n")
    with lease(folder):
        pass


@pytest.mark.parametrize("address", ["mlruns", "./mlruns", "file:///tmp/mlruns"])
def test_a_folder_of_plain_files_is_refused_before_the_search(folder, address):
    spec = make_spec(address)
    with pytest.raises(UserError, match=r"tracking\.uri: .* plain files.*sqlite:///mlflow\.db"):
        Tracker().begin(new_ledger(folder, spec), spec=spec, rule=scheduler_rule(spec))


def test_a_relative_database_is_shown_by_its_absolute_path(folder, database):
    spec = make_spec("sqlite:///mlflow.db")
    lines = project(three_trials(folder, spec), spec).closing_lines()
    assert lines[0] == f"MLflow: sqlite:///{database}"
    assert lines[1] == f"  to look at it: python -m search ui --uri sqlite:///{database}"
    assert all("?workflowType=machine_learning" in line for line in lines[2:])
    assert len(lines) == 4


def test_an_address_mlflow_cannot_use_is_told_without_its_password_and_stops_nothing(folder):
    spec = make_spec("nosuch://user:hunter2@host/db")
    tracker = project(three_trials(folder, spec), spec, deadline=30)
    (line,) = tracker.closing_lines()
    assert "3 of 3 trials are not written to nosuch://host/db" in line
    assert line.endswith("python -m search sync pets-1")
    assert "hunter2" not in line
    with pytest.raises(OutageError, match=r"^tracking\.uri: nosuch://host/db") as error:
        sync_ledger(spec, folder=folder)
    assert "hunter2" not in str(error.value)


@pytest.mark.slow
def test_a_server_that_comes_and_goes_loses_nothing_and_holds_nothing_up(folder, database, tmp_path):
    port = free_port()
    spec = make_spec(f"http://127.0.0.1:{port}")
    ledger = new_ledger(folder, spec)
    waits = []

    def report(number, epoch, accuracy):
        train(ledger, number, [accuracy], first=epoch)
        trial = ledger.trial(number)
        began = time.perf_counter()
        tracker.changed(trial)
        waits.append(time.perf_counter() - began)

    tracker = begun(ledger, spec)
    first, second = start(ledger, spec, RECIPES[0]), start(ledger, spec, RECIPES[1])
    for epoch in range(1, 6):
        report(first, epoch, 0.1 * epoch)
        time.sleep(0.2)
    with server(database, port):
        _wait_for(lambda: _has_epochs(spec.tracking.uri, "0", 5))
        report(second, 1, 0.3)
    for epoch in range(2, 6):
        report(second, epoch, 0.3)
        time.sleep(0.2)
    with server(database, port):
        report(first, 6, 0.9)
        for number in (first, second):
            ledger.end(number, state="COMPLETE", reason="trained to the end")
            tracker.changed(ledger.trial(number))
        tracker.end(ledger, outcome=Outcome("finished", "", folder))
        runs = stored(spec.tracking.uri)
    assert tracker.closing_lines()[0] == f"MLflow: http://127.0.0.1:{port}"
    assert set(runs) == {None, "0", "1"}
    assert values(runs["0"], METRIC) == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5), (6, 0.9)]
    assert values(runs["1"], METRIC) == [(epoch, 0.3) for epoch in range(1, 6)]
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    assert max(waits) < 0.05  # what a training process would feel; the bound is generous, the usual cost microseconds


@pytest.mark.slow
def test_what_a_dead_server_missed_is_written_by_sync(folder, database):
    port = free_port()
    spec = make_spec(f"http://user:hunter2@127.0.0.1:{port}")
    began = time.monotonic()
    tracker = project(three_trials(folder, spec), spec, deadline=30)
    assert time.monotonic() - began < 29  # ended by itself: a dead server does not use up the deadline
    (line,) = tracker.closing_lines()
    assert f"3 of 3 trials are not written to http://127.0.0.1:{port}" in line
    assert "hunter2" not in line
    with server(database, port):
        assert sync_ledger(spec, folder=folder).startswith("pets-1: 3 trials are in")
        runs = stored(spec.tracking.uri)
    assert [runs[key]["status"] for key in "012"] == ["FINISHED", "FINISHED", "FAILED"]
    assert values(runs["0"], METRIC) == [(1, 0.5), (2, 0.8), (3, 0.7)]


@pytest.mark.slow
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(folder):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        spec = make_spec(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        tracker = project(three_trials(folder, spec), spec, deadline=4)
        assert time.monotonic() - began < 6
    assert "3 of 3 trials are not written" in tracker.closing_lines()[0]


@contextmanager
def server(database, port):
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command += [
        "--backend-store-uri",
        f"sqlite:///{database}",
        "--artifacts-destination",
        str(Path(database).parent / "a"),
    ]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for(lambda: is_healthy(port))
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_healthy(port):
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _statuses(uri):
    client = client_of(uri)
    experiment = client.get_experiment_by_name("pets-1")
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    return {run.data.tags.get("search.trial"): run.info.status for run in runs}


def _has_epochs(uri, number, count):
    client = client_of(uri)
    experiment = client.get_experiment_by_name("pets-1")
    if experiment is None:
        return False
    runs = client.search_runs([experiment.experiment_id], filter_string=f"tags.`search.trial` = '{number}'")
    return bool(runs) and runs[0].data.tags.get("search.epochs") == str(count)


def _wait_for(condition, *, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.1)


def test_the_command_that_shows_the_pages_is_read_by_a_shell_as_it_is_meant(folder, database):
    place = folder.parent / "it's mine"
    place.mkdir(parents=True)
    shutil.copy(database, place / "mlflow.db")
    spec = make_spec(f"sqlite:///{place}/mlflow.db")
    command = project(three_trials(folder, spec), spec).closing_lines()[1].partition("to look at it: ")[2]
    assert shlex.split(command) == ["python", "-m", "search", "ui", "--uri", f"sqlite:///{place}/mlflow.db"]
