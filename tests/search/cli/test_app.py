"""What a command ends with: 1 for what may be tried again, 2 for a mistake in what was given, each said in its last line."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import fsspec
import pytest
import yaml

from search.cli import app
from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.report.overview import SPEC_FILE
from search.space.spec import SearchSpec
from search.watch.record import watched
from trainable import __main__ as trial_commands
from trainable.errors import OutageError, UserError

ROOT = Path(__file__).parents[3]
NOTHING_ANSWERS = "127.0.0.1:1"
NO_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}


def space(**search):
    return {
        "search": {"name": "cells", "trials": 1} | search,
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "tracking": {"uri": f"http://{NOTHING_ANSWERS}"},
        "refresh": {"settle_seconds": 0},
        "base": {"data": {"path": "images"}, "model": {"name": "test_resnet", "weights": "random"}},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}},
    }


@pytest.fixture
def place(tmp_path, draw_folder):
    """A folder with images, a space file, and a search of it that has not begun a trial."""
    draw_folder({"a": 8, "b": 8})
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space()))
    spec = SearchSpec.model_validate(space())
    folder = tmp_path / "searches/cells"
    facts = {"fingerprint": "f" * 32, "classes": ["a", "b"], "counts": {"train": {"a": 4, "b": 4}}}
    notes = {"metric": spec.search.metric, "spec": spec.model_dump(mode="json"), "data": facts}
    ledgers.create(folder, name="cells", storage=None, space=spec.space, metric=spec.search.metric, notes=notes)
    (folder / SPEC_FILE).write_text(spec.model_dump_json())
    return tmp_path


def call(*words, folder, main=app.main):
    """The code with which a command ends, and its lines."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        patch.dict(os.environ, NO_RETRIES),
        patch.object(sys, "argv", ["search", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    notes = [line for line in err.getvalue().splitlines() if line.startswith("note: ")]
    return SimpleNamespace(code=code, lines=lines, notes=notes, out=out.getvalue())


def assert_ends(result, *, code, said):
    assert "Traceback" not in "\n".join(result.lines)
    assert said in result.lines[-1]  # a refresh says before it what it does
    assert result.code == code


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "models:/cells@champion", "images", "--uri", f"http://{NOTHING_ANSWERS}"),
        ("rollback", "cells", "--uri", f"http://{NOTHING_ANSWERS}"),
        ("export", "models:/cells/1", "--uri", f"http://{NOTHING_ANSWERS}"),
        ("sync", "cells"),
        ("refresh", "space.yaml"),
    ],
)
def test_a_store_that_does_not_answer_may_be_asked_again(place, words):
    assert_ends(call(*words, folder=place), code=1, said="tracking.uri: ")


@pytest.mark.parametrize("words", [("run", "space.yaml"), ("resume", "cells"), ("sync", "cells"), ("promote", "cells")])
def test_a_search_that_another_process_holds_may_be_asked_for_again(place, words):
    with lease(place / "searches/cells"):
        assert_ends(call(*words, folder=place), code=1, said="this search is being run by process")


def test_a_space_that_another_process_watches_may_be_watched_later(place):
    spec = SearchSpec.model_validate(space(folder=str(place / "searches")))
    with watched(spec):
        assert_ends(call("watch", "space.yaml", "--every", "1h", folder=place), code=1, said="is watched already")


def test_a_cluster_that_does_not_answer_may_be_asked_again(place):
    result = call("run", "space.yaml", "--address", NOTHING_ANSWERS, folder=place)
    assert_ends(result, code=1, said=f"--address: nothing answers at {NOTHING_ANSWERS!r}")


@pytest.mark.parametrize(
    "words",
    [
        *((name, "cells") for name in ("status", "report", "resume", "sync", "promote", "export")),
        ("compare", "cells", "others"),
        ("run", "space.yaml"),
        ("refresh", "space.yaml"),
    ],
)
def test_a_database_that_does_not_answer_may_be_asked_again(place, empty_database, words):
    pytest.importorskip("psycopg", reason="needs psycopg: pip install '.[postgresql]'")
    (place / "mlflow.db").write_bytes(empty_database.read_bytes())
    document = space(storage=f"postgresql+psycopg://user@{NOTHING_ANSWERS}/none") | {
        "tracking": {"uri": "sqlite:///mlflow.db"}
    }
    (place / "space.yaml").write_text(yaml.safe_dump(document))
    for name in ("cells", "others"):
        (place / "searches" / name).mkdir(exist_ok=True)
        (place / "searches" / name / SPEC_FILE).write_text(SearchSpec.model_validate(document).model_dump_json())
    assert_ends(call(*words, folder=place), code=1, said="search.storage: cannot open the database (OperationalError")


def test_a_database_without_its_driver_is_a_mistake(place):
    document = space(storage="postgresql+nosuch://user@host/database")
    (place / "space.yaml").write_text(yaml.safe_dump(document))
    assert_ends(call("run", "space.yaml", folder=place), code=2, said="search.storage: cannot open the database")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "cell"), "no search of this name; did you mean 'cells'?"),
        (("predict", "cells", "images", "--uri", f"http://{NOTHING_ANSWERS}"), "'cells' is no model"),
        (("run", "space.yaml", "--address", "head"), "--address: got 'head'"),
        (("run", "space.yaml", "--set", "search.seed=9"), "search.seed: 0 -> 9"),
    ],
)
def test_a_mistake_is_not_to_be_tried_again(place, words, said):
    assert_ends(call(*words, folder=place), code=2, said=said)


def test_a_version_that_is_not_there_is_a_mistake(place, empty_database):
    (place / "mlflow.db").write_bytes(empty_database.read_bytes())
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    client.create_registered_model("cells")
    for version in ("@champion", "/1"):
        result = call("predict", f"models:/cells{version}", "images", folder=place)
        assert_ends(result, code=2, said="there is no such version; 'cells' has no alias yet")


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "models:/cells@champion", "images"),
        ("rollback", "cells"),
        ("export", "models:/cells/1"),
        ("sync", "cells"),
        ("refresh", "space.yaml"),
    ],
)
def test_tables_of_an_older_mlflow_are_the_users_to_upgrade(place, empty_database, words):
    (place / "mlflow.db").write_bytes(empty_database.read_bytes())
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = 'bd07f7e963c5'")
    document = space() | {"tracking": {"uri": "sqlite:///mlflow.db"}}
    (place / "space.yaml").write_text(yaml.safe_dump(document))
    (place / "searches/cells" / SPEC_FILE).write_text(SearchSpec.model_validate(document).model_dump_json())
    said = f"`mlflow db upgrade sqlite:///{place}/mlflow.db`, after a backup, makes it one of this"
    assert_ends(call(*words, folder=place), code=2, said=said)


@pytest.fixture
def unreachable(monkeypatch):
    """A store in this process that breaks off every connection."""

    def refuse(*_args, **_options):
        raise ConnectionError("connection refused")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", refuse)


@pytest.mark.parametrize(("scheme", "code"), [("memory", 1), ("nosuch", 2), ("http", 2)])
@pytest.mark.usefixtures("unreachable")
def test_images_behind_an_address_that_does_not_answer_may_be_asked_for_again(place, scheme, code):
    document = space() | {"base": {"data": {"path": f"{scheme}://{NOTHING_ANSWERS}/images"}}}
    (place / "space.yaml").write_text(yaml.safe_dump(document))
    for words in (("run", "space.yaml"), ("refresh", "space.yaml"), ("check", "space.yaml")):
        assert_ends(call(*words, folder=place), code=code, said="data.path: ")
    (place / "trial.yaml").write_text(yaml.safe_dump(document["base"]))
    result = call("fit", "trial.yaml", folder=place, main=trial_commands.main)
    assert_ends(result, code=code, said="data.path: ")


def test_an_outage_is_no_mistake_that_somebody_answers():
    assert not issubclass(OutageError, UserError)
    assert not issubclass(UserError, OutageError)


def with_code():
    document = space()
    return document | {"base": document["base"] | {"augment": {"custom": ["own_views:black"]}}}


@pytest.fixture
def coded(place, monkeypatch):
    """The place with a space, and a search that was begun, whose configurations name a module that lies there."""
    (place / "own_views.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\ndef black(image): return image * 0\n"
    )
    monkeypatch.syspath_prepend(place)
    (place / "space.yaml").write_text(yaml.safe_dump(with_code()))
    (place / "searches/cells" / SPEC_FILE).write_text(SearchSpec.model_validate(with_code()).model_dump_json())
    (place / "trial.yaml").write_text(yaml.safe_dump(with_code()["base"]))
    return place


@pytest.mark.parametrize(
    "words",
    [
        ("check", "space.yaml"),
        ("plan", "space.yaml"),
        ("run", "space.yaml"),
        ("refresh", "space.yaml"),
        ("watch", "space.yaml", "--every", "never"),
        ("resume", "cells"),
        ("promote", "cells"),
        ("trial.yaml",),
    ],
    ids=" ".join,
)
def test_a_space_with_code_of_its_own_is_refused_where_that_is_not_allowed(coded, words):
    main = trial_commands.main if words == ("trial.yaml",) else app.main
    result = call(*words, folder=coded, main=main)
    assert_ends(
        result, code=2, said="augment.custom: 'own_views:black' is code, which is imported with --allow-code alone"
    )
    assert not (coded / "ran").exists()


def test_a_check_finds_code_that_is_allowed_without_running_it(coded):
    assert call("check", "space.yaml", "--allow-code", folder=coded).code == 0
    assert not (coded / "ran").exists()
    pickles = call("check", "space.yaml", "--allow-code", "--set", "augment.custom=[pickle:loads]", folder=coded)
    assert_ends(pickles, code=2, said="augment.custom: 'pickle:loads' is no function of your own")
    assert_ends(call("check", "space.yaml", folder=coded), code=2, said="augment.custom")  # each command asks anew


def test_code_that_is_searched_is_found_too(coded):
    document = space()
    document["vary"]["augment.custom"] = {"choice": [[], ["own_views:black"]]}
    (coded / "space.yaml").write_text(yaml.safe_dump(document))
    assert_ends(call("check", "space.yaml", folder=coded), code=2, said="augment.custom: 'own_views:black' is code")


def documented_codes():
    """The exit codes of the table in the README."""
    lines = (ROOT / "README.md").read_text().partition("| exit code |")[2].partition("\n\n")[0].splitlines()
    return {int(line.split("|")[1]) for line in lines if line.split("|")[1:2] and line.split("|")[1].strip().isdigit()}


def test_commands_end_with_the_codes_of_the_table_in_the_readme_and_with_no_others(place):
    patient = space() | {"refresh": {"settle_seconds": 1e9}}
    (place / "patient.yaml").write_text(yaml.safe_dump(patient))
    endings = {
        call("check", "space.yaml", folder=place).code: "done",
        call("rollback", "cells", "--uri", f"http://{NOTHING_ANSWERS}", folder=place).code: "may go away",
        call("resume", "cell", folder=place).code: "a mistake",
        call("refresh", "patient.yaml", folder=place).code: "nothing to do",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "search", "watch", "space.yaml", "--every", "1h"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()  # it is watching
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    endings[process.returncode] = "interrupted"
    expected = {0: "done", 1: "may go away", 2: "a mistake", 3: "nothing to do", 130: "interrupted"}
    assert endings == expected
    assert documented_codes() == set(expected)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("check", "space.yaml", "--set", "optimizer.lr=-1"), 2),
        (("check", "nosuch.yaml"), 2),
        (("run", "space.yaml", "--no-such-option"), 2),
        (("status",), 2),
        (("run", "space.yaml", "--set", "resources.cpu=4096"), 2),
        (("resume", "cells", "--set", "optimizer.lr=0.1"), 2),
        (("fields", "optimizer.lr"), 0),
        (("list",), 0),
    ],
)
def test_what_the_user_must_change_is_a_two_and_nothing_else(place, words, code):
    assert call(*words, folder=place).code == code


def test_check_notes_what_a_trial_asks_for_and_this_machine_does_not_have(place):
    result = call(
        "check", "space.yaml", "--set", "resources.cpu=4096", "--set", "resources.gpu=64", "--json", folder=place
    )
    assert result.code == 0
    notes = json.loads(result.out)[0]["notes"]
    assert sum(note.startswith(("resources.cpu: 4096 asked", "resources.gpu: 64 asked")) for note in notes) == 2
    plain = json.loads(call("check", "space.yaml", "--json", folder=place).out)[0]["notes"]
    assert not any(note.startswith("resources.") for note in plain)


@pytest.mark.parametrize("words", [("check", "space.yaml"), ("refresh", "space.yaml"), ("run", "space.yaml")])
def test_a_command_says_that_mlflow_is_where_the_environment_says(place, monkeypatch, words):
    document = space()
    del document["tracking"]
    (place / "space.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")  # a folder of plain files, which is refused
    result = call(*words, folder=place)
    assert "tracking.uri: from MLFLOW_TRACKING_URI of the environment" in "\n".join([result.out, *result.notes])
