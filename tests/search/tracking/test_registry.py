"""The registry: killed between any two of its steps, entered by two at once, given other files than were registered."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
from itertools import count

import pytest

from search.tracking.model_files import hashes
from search.tracking.registry import CHALLENGER, CHAMPION, INTENT, PREVIOUS, ROLLED_BACK, Registry, download, resolve
from trainable.errors import UserError

pytestmark = pytest.mark.slow

NAME = "cells"
WRITES = (
    "create_registered_model",
    "log_artifacts",
    "create_model_version",
    "set_model_version_tag",
    "update_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "delete_registered_model_tag",
)
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["search.tracking.registry"])


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow database, made once: it takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def make_place(tmp_path, empty_store):
    """Makes a store with an experiment, and the files of three models."""
    from mlflow import MlflowClient

    def make(name):
        root = tmp_path / name
        root.mkdir()
        (root / "mlflow.db").write_bytes(empty_store)
        client = MlflowClient(f"sqlite:///{root}/mlflow.db")
        client.create_experiment("cells", artifact_location=(root / "mlartifacts").as_uri())
        for candidate in ("one", "two", "three"):
            folder = root / candidate
            (folder / "inner").mkdir(parents=True)
            (folder / "MLmodel").write_text(candidate)
            (folder / "inner" / "weights").write_bytes(candidate.encode() * 100)
        return root

    return make


@pytest.fixture
def place(make_place):
    return make_place("place")


def open_registry(place):
    return Registry(f"sqlite:///{place}/mlflow.db", name=NAME, lock_folder=place)


def promoted(place, candidate):
    """All that a promotion writes, as it is written."""
    from mlflow import MlflowClient

    registry = open_registry(place)
    client = MlflowClient(registry.uri, registry_uri=registry.uri)
    with registry.locked():
        pass
    version = registry.of_candidate(candidate)
    if version is None:
        run = client.create_run(client.get_experiment_by_name("cells").experiment_id)
        version = registry.register(
            candidate, model=place / candidate, run_id=run.info.run_id, tags={"a": "b"}, sentence="as made"
        )
    registry.describe(version, tags={"gate.verdict": "yes"}, sentence=f"judged {candidate}")
    registry.challenge(version)
    with registry.locked():
        registry.switch(version.number, why="promote")


def rolled_back(place, candidate):
    open_registry(place).rollback()


def state(place):
    """Aliases, tags and description of every version, checked files: all that a registry says."""
    from mlflow import MlflowClient

    registry = open_registry(place)
    client = MlflowClient(registry.uri, registry_uri=registry.uri)
    model = client.get_registered_model(NAME)
    versions = {}
    for found in client.search_model_versions(f"name = '{NAME}'"):
        tags = {key: value for key, value in found.tags.items() if not key.startswith("mlflow.")}
        folder = place / f"checked_{found.version}_{next(numbers)}"
        download(registry.uri, f"models:/{NAME}/{found.version}", folder=folder)
        versions[int(found.version)] = (tags, found.description)
    return {alias: int(number) for alias, number in model.aliases.items()}, dict(model.tags), versions


numbers = count()


def _killed_after(work, place, candidate, writes):
    """Runs a function and dies by SIGKILL right after its n-th write to the store."""
    from mlflow import MlflowClient

    left = count(writes - 1, -1)

    def deadly(real):
        def counted(*args, **kwargs):
            result = real(*args, **kwargs)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for name in WRITES:
        setattr(MlflowClient, name, deadly(getattr(MlflowClient, name)))
    work(place, candidate)


def in_process(function, *args):
    process = processes.Process(target=function, args=args)
    process.start()
    return process


def killed(work, place, candidate, *, writes):
    """Whether a process that does the work was killed after so many writes, and did not come to its end before."""
    process = in_process(_killed_after, work, place, candidate, writes)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.long
def test_killed_after_any_write_and_run_again_a_promotion_ends_as_the_unbroken_one(make_place):
    """Every second write in one run of the tests, by chance the even or the odd ones."""
    unbroken = make_place("unbroken")
    promoted(unbroken, "one")
    promoted(unbroken, "two")
    expected = state(unbroken)
    assert expected[:2] == ({CHAMPION: 2, PREVIOUS: 1}, {})
    for writes in count(random.choice((1, 2)), 2):
        place = make_place(f"killed_{writes}")
        deaths = 0
        for candidate in ("one", "two"):
            deaths += killed(promoted, place, candidate, writes=writes)
            promoted(place, candidate)
        assert state(place) == expected, f"killed after write {writes}"
        if not deaths:
            break
    assert writes >= 8  # as many as a promotion makes


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_killed_after_any_write_a_rollback_is_done_once(place, writes):
    promoted(place, "one")
    promoted(place, "two")
    if killed(rolled_back, place, "", writes=writes):
        with contextlib.suppress(UserError):  # where only the print was missing, there is nothing left to go back to
            rolled_back(place, "")
    aliases, tags, versions = state(place)
    assert aliases == {CHAMPION: 1}
    assert tags == {}
    assert ROLLED_BACK in versions[2][0]


def test_two_promoters_at_once_leave_one_champion_and_the_other_before_it(place):
    promoted(place, "one")
    both = [in_process(promoted, place, candidate) for candidate in ("two", "three")]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    aliases, tags, versions = state(place)
    registered = {tags["search.candidate"]: number for number, (tags, _) in versions.items()}
    assert set(registered) == {"one", "two", "three"}
    assert {aliases[CHAMPION], aliases[PREVIOUS]} == {registered["two"], registered["three"]}
    assert tags == {}


def test_a_refused_candidate_is_the_challenger_and_moves_no_champion(place):
    from mlflow import MlflowClient

    promoted(place, "one")
    registry = open_registry(place)
    client = MlflowClient(registry.uri, registry_uri=registry.uri)
    run = client.create_run(client.get_experiment_by_name("cells").experiment_id)
    version = registry.register("two", model=place / "two", run_id=run.info.run_id, tags={}, sentence="made")
    registry.challenge(version)
    assert state(place)[0] == {CHAMPION: 1, CHALLENGER: 2}


def test_there_and_back_again(place):
    promoted(place, "one")
    with pytest.raises(UserError, match="cells: has no previous champion to go back to"):
        rolled_back(place, "")
    promoted(place, "two")
    assert open_registry(place).rollback() == 1
    with pytest.raises(UserError, match="has no previous champion"):  # a second call does not undo the first
        rolled_back(place, "")
    promoted(place, "two")
    assert state(place)[0] == {CHAMPION: 2, PREVIOUS: 1}


@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_files_that_are_not_those_registered_are_not_loaded(place, harm, tmp_path):
    promoted(place, "one")
    (stored,) = (place / "mlartifacts").rglob("weights")
    if harm == "changed":
        stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    elif harm == "missing":
        stored.unlink()
    else:
        (stored.parent / "extra.py").write_text("import os")
    name = "inner/extra.py" if harm == "added" else "inner/weights"
    with pytest.raises(UserError, match=f"'{name}' is not the file that was registered"):
        download(open_registry(place).uri, f"models:/{NAME}@champion", folder=tmp_path / "download")
    (listed,) = (place / "mlartifacts").rglob("sha256.json")
    for text in (
        json.dumps({"MLmodel": "0" * 64}),
        "[1]",
        "null",
        "[" * 100_000,
    ):  # not what was registered: it names nothing
        listed.write_text(text)
        with pytest.raises(UserError, match="one of its files is not the file that was registered"):
            download(open_registry(place).uri, f"models:/{NAME}@champion", folder=tmp_path / "again")


def test_a_version_from_before_there_was_a_digest_of_all_its_files_is_loaded_and_checked(place, tmp_path):
    promoted(place, "one")
    registry = open_registry(place)
    from mlflow import MlflowClient

    client = MlflowClient(registry.uri)
    client.delete_model_version_tag(NAME, "1", "files.sha256")
    with pytest.raises(UserError, match="has no checksums"):
        download(registry.uri, f"models:/{NAME}@champion", folder=tmp_path / "none")
    for name, digest in hashes(place / "one").items():
        client.set_model_version_tag(NAME, "1", f"sha256.{name}", digest)
    download(registry.uri, f"models:/{NAME}@champion", folder=tmp_path / "good")
    client.set_model_version_tag(NAME, "1", "sha256.MLmodel", "0" * 64)
    with pytest.raises(UserError, match="'MLmodel' is not the file that was registered"):
        download(registry.uri, f"models:/{NAME}@champion", folder=tmp_path / "bad")


def test_a_model_that_mlflow_has_loaded_itself_is_still_loaded_by_us(place, tmp_path):
    promoted(place, "one")
    (stored,) = (place / "mlartifacts").rglob("MLmodel")
    (stored.parent / "registered_model_meta").write_text("model_name: cells\nmodel_version: '1'\n")  # as MLflow does
    download(open_registry(place).uri, f"models:/{NAME}@champion", folder=tmp_path / "download")


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("cells", "'cells' is no model; must be like models:/NAME@champion"),
        ("models:/cell@champion", "no model 'cell' in sqlite:.*did you mean 'cells'"),
        ("models:/cells@best", "there is no such version; 'cells' has @champion"),
        ("models:/cells/7", "there is no such version"),
    ],
)
def test_an_address_that_names_nothing_is_one_line(place, asked, line):
    promoted(place, "one")
    with pytest.raises(UserError, match=line):
        resolve(open_registry(place).uri, asked)


def test_an_intent_that_somebody_left_is_carried_out_once(place):
    promoted(place, "one")
    promoted(place, "two")
    from mlflow import MlflowClient

    registry = open_registry(place)
    client = MlflowClient(registry.uri, registry_uri=registry.uri)
    client.set_registered_model_tag(NAME, INTENT, json.dumps({"to": 1, "from": 2, "why": "rollback"}))
    assert registry.finish_switch() == "rollback"
    assert registry.finish_switch() is None
    assert state(place)[0] == {CHAMPION: 1}
