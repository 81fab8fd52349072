"""From two searches to a served champion, through the command line: judged, killed, rolled back, asked over HTTP."""

import base64
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from mlflow import MlflowClient
from sqlalchemy import create_engine, text

from search.report.report import report_data

pytestmark = pytest.mark.slow

EACH = 60
SPACE = {
    "resources": {"cpu": 1, "concurrency": 1},
    "soup": 0,
    "promote": {"model": "kinds", "confirm": {"top": 1, "seeds": 2}, "max_ece": None},
}
BASE = {
    "data": {"path": "kinds", "image_size": 48, "test_share": 0.35, "val_share": 0.2},
    "train": {"batch_size": 8},
    "augment": {"strength": "none"},
}
SEARCHES = {
    "weak": {  # random weights that stay as they are
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "base": BASE | {"model": {"name": "resnet10t", "weights": "random"}},
        "vary": {"optimizer.lr": {"log": [1e-9, 1e-8]}},
    },
    "strong": {
        "scheduler": {"min_epochs": 3, "max_epochs": 3},
        "base": BASE | {"model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"}},
        "vary": {"optimizer.lr": {"log": [2e-3, 3e-3]}, "freeze.depth": {"choice": [0.5]}},
    },
}


@pytest.fixture(scope="module", params=["sqlite", "server"])
def store(request, tmp_path_factory):
    """Where MLflow is: a file in the place, or a server with PostgreSQL behind it and passwords before it."""
    if request.param == "sqlite":
        yield {}
        return
    database = os.environ.get("TEST_POSTGRESQL")
    if database is None:
        pytest.skip("TEST_POSTGRESQL names no database")
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]")
    with mlflow_server(database, folder=tmp_path_factory.mktemp("server")) as address:
        yield {"tracking": {"uri": address}}


@contextmanager
def mlflow_server(database, *, folder):
    """A server on a schema of its own; whoever asks needs the password that the environment then holds."""
    schema, port = f"mlflow_{uuid.uuid4().hex[:8]}", free_port()
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/auth.db\nauth_cache_ttl_seconds = 60\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": uuid.uuid4().hex}
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": f"{database}?options=-csearch_path%3D{schema}",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": login["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": uuid.uuid4().hex,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
        os.environ |= login
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            for name in login:
                del os.environ[name]
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            with engine.connect() as connection:
                connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture(scope="module")
def searched(make_place, store):
    """Two finished searches over images of two kinds of cells; the worse one's best is champion."""
    place = make_place()
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    cells = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    for kind in ("mono", "poly"):
        (place.folder / "kinds" / kind).mkdir(parents=True)
        for name in [name for name, share, one in cells if one == kind and float(share) == 0.0][:EACH]:
            shutil.copy(data / name, place.folder / "kinds" / kind)
    for name, sections in SEARCHES.items():
        space = SPACE | store | sections | {"search": {"name": name, "trials": 2, "seed": 1}}
        (place.folder / f"{name}.yaml").write_text(yaml.safe_dump(space))
        place.told("run", f"{name}.yaml")
    return place


@pytest.fixture(scope="module")
def first(searched):
    """What promoting the worse one said, and what a dry run of it had said and left before.

    It is hardly better than chance, which the gate may refuse.
    """
    dry = json.loads(searched.call("promote", "weak", "--dry-run", "--json").stdout)
    models = client(searched).search_registered_models()
    return searched.read("promote", "weak", "--force"), dry, models


@pytest.fixture(scope="module")
def better(searched, first, make_place, store):
    """The better one promoted, in a copy of the place, killed on its way; and in another, unbroken."""
    killed, other, unbroken = copied(searched, make_place()), None, None
    if not store:  # a server has one registry, in which both would be the same candidate
        other = copied(searched, make_place())
        unbroken = other.read("promote", "strong")
    killed_on_the_way(killed)
    return killed, killed.read("promote", "strong"), other, unbroken


def copied(place, other):
    shutil.copytree(place.folder, other.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("images"))
    return other


def killed_on_the_way(place):
    """Kills a promotion among its refits, after its package or after its test."""
    begun = place.lines("strong")
    refits = place.folder / "searches/strong/refits"
    writes = random.randint(1, 12)
    moments = {  # one a run of the tests: each costs a start of everything
        f"after {writes} writes": lambda: place.lines("strong") >= begun + writes,
        "after its package": lambda: any(refits.glob("packages/*/package")),
        "after its test": lambda: any(refits.glob("test-*.json")),
    }
    moment = random.choice(list(moments))
    print(f"killed {moment}")
    place.kill_when(moments[moment], "promote", "strong")


def uri(place):
    space = yaml.safe_load((place.folder / "weak.yaml").read_text())
    return space.get("tracking", {}).get("uri", f"sqlite:///{place.folder}/mlflow.db")


def client(place):
    return MlflowClient(uri(place))


def experiments(place):
    return [one.experiment_id for one in client(place).search_experiments()]


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def at(place):
    """What a command that knows no search is told."""
    return ["--uri", uri(place)]


def aliases(place):
    return {alias: int(number) for alias, number in client(place).get_registered_model("kinds").aliases.items()}


def test_a_dry_run_judges_and_changes_nothing(first):
    promoted, dry, models = first
    assert dry["outcome"] == "dry run"
    assert dry["candidate"] == promoted["candidate"]
    assert promoted["forced"] == (not dry["promote"])
    assert models == []


def test_the_first_champion_is_confirmed_on_fresh_seeds_and_measured_once(searched, first):
    promoted, _, _ = first
    assert (promoted["outcome"], promoted["version"], promoted["champion"]) == ("promoted", 1, None)
    (recipe,) = promoted["confirmed"]
    assert len(recipe["values"]) == 2
    assert promoted["candidate"]["seed"] == int(max(recipe["values"], key=recipe["values"].get))
    assert promoted["candidate"]["test_reads"] == 2  # one by the search, one for this candidate, none for the dry run
    refits = client(searched).search_runs(experiments(searched), "tags.`search.kind` = 'refit'")
    assert sorted(run.data.tags["search.refit"] for run in refits) == ["0", "1"]
    assert all(run.info.status == "FINISHED" and "val/loss" in run.data.metrics for run in refits)


def test_refits_leave_the_search_as_it_was(searched, first):
    assert len(searched.ledger("weak").trials()) == 2
    assert len(report_data(searched.folder / "searches/weak")["leaderboard"]) == 2


def test_a_better_model_becomes_champion_and_the_one_before_is_kept(better):
    place, promoted, _, _ = better
    assert (promoted["outcome"], promoted["version"], promoted["champion"]) == ("promoted", 2, 1)
    assert promoted["numbers"]["paired"]["gain"]["low"] > 0
    assert aliases(place) == {"champion": 2, "previous": 1}
    version = client(place).get_model_version("kinds", "2")
    assert version.tags["gate.verdict"] == "yes"
    assert "against the champion on 42 images" in version.tags["gate.reasons"]
    assert version.description.startswith("trial ")


def listed(store, *, version):
    """The files of a version with their SHA-256."""
    run = store.get_model_version("kinds", str(version)).run_id
    return json.loads(Path(store.download_artifacts(run, "sha256.json")).read_text())


def test_killed_anywhere_on_its_way_a_promotion_ends_as_the_unbroken_one(better):
    killed, promoted, place, unbroken = better
    if place is None:
        pytest.skip("a server has one registry: there is no unbroken promotion beside this one")

    def told(found):  # of the size a few bytes are MLflow's, which say where the package lay
        numbers = {key: value for key, value in found["numbers"].items() if key not in ("latency_ms", "size_mb")}
        return {**found, "numbers": numbers, "candidate": found["candidate"] | {"package": None}}

    assert told(promoted) == told(unbroken)
    sizes = [found["numbers"]["size_mb"] for found in (promoted, unbroken)]
    assert sizes[0] == pytest.approx(sizes[1], abs=1e-4)
    assert aliases(killed) == aliases(place)
    tags = [client(one).get_model_version("kinds", "2").tags for one in (killed, place)]
    assert tags[0]["search.candidate"] == tags[1]["search.candidate"]
    weights = [listed(client(one), version=2)["artifacts/package/weights.safetensors"] for one in (killed, place)]
    assert weights[0] == weights[1]
    runs = client(killed).search_runs(experiments(killed), "tags.`search.kind` = 'gate'")
    assert len(runs) == 2  # one for each candidate


def test_again_it_changes_nothing(better):
    place, _, _, _ = better
    again = place.read("promote", "strong")
    assert (again["outcome"], again["version"], again["candidate"]["test_reads"]) == ("unchanged", 2, 2)
    assert aliases(place) == {"champion": 2, "previous": 1}


def test_a_worse_model_is_refused_with_reasons(better):
    place, _, _, _ = better
    result = place.call("promote", "weak")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "NO   gain: balanced_accuracy -" in result.stdout
    assert "kinds: version 1 is not promoted" in result.stdout
    assert aliases(place) == {"champion": 2, "previous": 1, "challenger": 1}
    assert client(place).get_model_version("kinds", "1").tags["gate.verdict"] == "no"


def test_a_rollback_stays_until_somebody_insists(better):
    place, _, _, _ = better
    assert "version 1 is champion again" in place.told("rollback", "kinds", *at(place))
    assert "previous" not in aliases(place)
    refused = place.call("promote", "strong", "--json")
    assert refused.returncode == 3
    failed = [check["said"] for check in json.loads(refused.stdout)["checks"] if not check["passed"]]
    assert failed == ["it was champion and was rolled back"]
    assert place.read("promote", "strong", "--force")["forced"]
    assert aliases(place) == {"champion": 2, "previous": 1}


def test_its_files_and_card_are_in_the_registry(better):
    place, _, _, _ = better
    version = client(place).get_model_version("kinds", "2")
    assert len(version.tags["files.sha256"]) == 64
    files = listed(client(place), version=2).keys()
    assert "promotion.html" in [one.path for one in client(place).list_artifacts(version.run_id)]
    assert {"MLmodel", "card.md", "served_model.py", "artifacts/package/weights.safetensors"} <= files
    folder = Path(client(place).download_artifacts(version.run_id, "model"))
    assert not any(path.suffix in (".pkl", ".pt", ".pth") for path in folder.rglob("*"))
    card = (folder / "card.md").read_text()
    for said in ("## Intended use", "| mono |", version.tags["data.fingerprint"], "trained again on fresh seeds"):
        assert said in card


def test_images_are_classified_from_files_and_folders(better, tmp_path):
    place, _, _, _ = better
    (tmp_path / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out.csv"
    result = place.run(
        "predict",
        "models:/kinds@champion",
        "kinds/mono",
        str(tmp_path / "broken.png"),
        "--csv",
        str(out),
        "--json",
        *at(place),
    )
    assert result.returncode == 1
    assert f"{out}: 61 images" in " ".join(result.stderr.split())
    assert "1 of 61 images cannot be used" in result.stderr
    found = json.loads(result.stdout)
    assert found[-1]["error"] is not None
    right = sum(one["label"] == "mono" for one in found[:-1])
    assert right > 45
    assert len(out.read_text().splitlines()) == 62


def parent_run(place, name):
    """The id of the run of a whole search."""
    (experiment,) = [one for one in client(place).search_experiments() if one.name == name]
    (run,) = client(place).search_runs([experiment.experiment_id], "tags.`search.kind` = 'study'")
    return run.info.run_id


@pytest.mark.parametrize("name", [pytest.param("strong", marks=pytest.mark.long), "models:/kinds@champion"])
def test_it_is_exported_with_a_table_that_goes_to_mlflow_too(better, name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    place, _, _, _ = better
    words = at(place) if name.startswith("models:") else []
    found = place.read("export", name, "--to", "onnx", "--out", str(tmp_path / "out"), *words)
    assert [row["name"] for row in found["variants"]] == ["torch fp32", "onnx fp32"]
    assert found["variants"][1]["agreement"] == 1.0
    assert runtime.InferenceSession(tmp_path / "out" / "model.onnx").get_inputs()[0].shape[1:] == [3, 48, 48]
    run_id = client(place).get_model_version_by_alias("kinds", "champion").run_id
    if not name.startswith("models:"):
        run_id = parent_run(place, "strong")
    logged = {one.path for one in client(place).list_artifacts(run_id, "export")}
    assert logged == {"export/model.onnx", "export/variants.json"}


@pytest.mark.long
def test_it_is_exported_where_mlflow_knows_nothing_of_it(better, tmp_path):
    pytest.importorskip("onnxruntime")
    place, _, _, _ = better
    if os.environ.get("TEST_POSTGRESQL"):
        pytest.skip("the store is a server here, which cannot be put aside")
    database, aside = place.folder / "mlflow.db", place.folder / "aside.db"
    database.rename(aside)
    try:
        # A process of its own: this one may hold the database open, wherever its file is put.
        result = place.succeed("export", "strong", "--to", "onnx", "--out", str(tmp_path / "out"), "--json")
    finally:
        aside.replace(database)
    found = json.loads(result.stdout)
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert found["note"] == "not in MLflow, which has no run of this search yet; `sync` writes it there"


def test_mlflow_serves_it_over_http(better):
    place, _, _, _ = better
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/kinds@champion"]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri(place),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    server = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        cwd=place.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        image = next((place.folder / "kinds/mono").iterdir())
        answer = ask(port, base64.b64encode(image.read_bytes()).decode())
        assert answer[0] == 200
        (row,) = json.loads(answer[1])["predictions"]
        (local,) = place.read("predict", "models:/kinds@champion", str(image), *at(place))
        assert (row["label"], row["score"]) == (local["label"], pytest.approx(local["score"]))
        assert ask(port, base64.b64encode(b"no image").decode())[0] == 400
        assert ask(port, None)[0] == 400
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address, server):
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        try:
            return urlopen(address, timeout=5).read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def ask(port, image):
    columns, row = (["image"], [image]) if image is not None else ([], [])
    body = json.dumps({"dataframe_split": {"columns": columns, "data": [row]}}).encode()
    request = Request(f"http://127.0.0.1:{port}/invocations", data=body, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["promote", "strnog"], "no search of this name; did you mean 'strong'"),
        (["promote", "weak", "--set", "promote.model=a/b"], "--set: promote.model"),
        (["promote", "weak", "--dry-run", "--force"], "--dry-run and --force exclude each other"),
        (["promote", "weak", "--set", "search.seed=3"], "--set search.seed: a search that has run stays as it is"),
        (["promote", "weak", "--set", "promote.beter_by=1"], "did you mean 'promote.better_by'"),
        (["promote", "weak", "--set", "promote.better_by=two"], "--set: promote.better_by"),
        (
            ["promote", "weak", "--set", "promote.min_recall={mno: 0.5}"],
            "promote.min_recall.mno: there is no such class",
        ),
        (["rollback", "knds"], "no model 'knds' in "),
        (["export", "strnog"], "no search of this name; did you mean 'strong'"),
        (["export", "strong", "--to", "onx"], "unknown format 'onx'; did you mean 'onnx'"),
        (["export", "strong", "--prune", "1.5"], "--prune: 1.5 is not a share"),
        (["predict", "models:/kinds@champion", "nowhere"], "nowhere: there is no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(better, words, line):
    place, _, _, _ = better
    result = place.call(*words, *(at(place) if words[0] == "rollback" else ()))
    assert result.returncode == 2, result.stdout + result.stderr
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_images_that_changed_since_the_search_are_not_promoted_on(searched, first, make_place):
    place = copied(searched, make_place())
    next((place.folder / "kinds/mono").iterdir()).unlink()
    result = place.call("promote", "weak")
    assert result.returncode == 1
    assert "data.path: the images have changed since this search began" in result.stderr


def test_images_that_arrive_during_a_promotion_stop_it_and_nothing_is_registered(searched, first, make_place):
    place = copied(searched, make_place())
    packages = place.folder / "searches/weak/refits/packages"
    (package,) = packages.glob("*/package")
    shutil.rmtree(package)
    added = place.folder / "kinds/mono/new.png"
    content = min(added.parent.iterdir()).read_bytes() + b"\0"

    def add_when_the_package_is_written():
        while not any(packages.glob("*/.*")):
            time.sleep(0.001)
        added.write_bytes(content)

    versions = len(client(place).search_model_versions())
    threading.Thread(target=add_when_the_package_is_written, daemon=True).start()
    result = place.call("promote", "weak")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "error: data.path: the images have changed since this search began" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert len(client(place).search_model_versions()) == versions
    added.unlink()
    assert place.read("promote", "weak")["outcome"] == "unchanged"


def test_an_unfinished_search_is_not_promoted(searched, make_place):
    place = copied(searched, make_place())
    place.ledger("weak").note(finished=False)
    result = place.call("promote", "weak")
    assert result.returncode == 2
    assert "weak: is not finished; `python -m search resume weak` goes on with it" in result.stderr
