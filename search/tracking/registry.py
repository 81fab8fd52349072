"""The registered versions of a model in MLflow: made, checked, loaded, and which of them is champion.

Every step can be repeated and then does what is missing: a version is found again by its candidate's digest, a switch of
champion by the intent that is noted before it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as StoredVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from search.ledger.sqlite_address import sqlite_file
from search.tracking.model_files import hashes
from search.tracking.uri import StoreFailsError, check_uri, store_failure
from trainable.errors import UserError, nearest
from trainable.json_text import finite
from trainable.masking import masked_address

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
CANDIDATE = "search.candidate"
ROOT = "data.root"  # the folder from which the paths of a version's data count
INTENT = "search.switching"
ROLLBACK, ROLLED_BACK = "rollback", "search.rolled_back"
DIGEST = "files.sha256"  # a digest of the SHA-256 of all files
FILE_LIST = "sha256.json"  # these by name: a file of the version's run
OLD_TAGS = "sha256."  # a tag for each file: of versions from before there was a digest of all
ADDED_BY_MLFLOW = "registered_model_meta"  # text that its own loader writes beside a model in a local store; never run
MODEL_FOLDER = "model"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow says of a version, and of an alias
LONGEST_TAG = 5000


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version; ``tags`` hold its verdict and a digest of its files, its run the files themselves."""

    name: str
    number: int
    tags: Mapping[str, str]
    run_id: str

    @property
    def uri(self) -> str:
        """What MLflow calls it."""
        return f"models:/{self.name}/{self.number}"


class Registry:
    """The versions of one model."""

    def __init__(self, uri: str, *, name: str, lock_folder: Path) -> None:
        self.name = name
        self.uri = check_uri(uri)
        self._lock = _lock_path(self.uri, name=name, folder=lock_folder)
        with store_errors_as_outages(self.uri):
            self._client = MlflowClient(self.uri, registry_uri=self.uri)

    def by_alias(self, alias: str) -> ModelVersion | None:
        """The version that bears an alias now."""
        number = self._aliases().get(alias)
        return None if number is None else self.version(number)

    def settle_champion(self) -> ModelVersion | None:
        """Finish a switch that was cut off, and give the champion."""
        with self.locked():
            return self.by_alias(CHAMPION)

    def version(self, number: int) -> ModelVersion:
        """A version by its number."""
        return _version(self._client.get_model_version(self.name, str(number)))

    def has(self, number: int) -> bool:
        """Whether there is a version of this number."""
        try:
            self.version(number)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def of_candidate(self, candidate: str) -> ModelVersion | None:
        """The version that was made of a candidate."""
        if self._model() is None:
            return None
        versions = map(_version, self._client.search_model_versions(f"name = '{self.name}'"))
        return next((version for version in versions if version.tags.get(CANDIDATE) == candidate), None)

    def register(
        self, candidate: str, *, model: Path, run_id: str, tags: Mapping[str, str], sentence: str
    ) -> ModelVersion:
        """A new version for a candidate that has none, whose files lie in ``model``."""
        if self._model() is None:
            self._client.create_registered_model(self.name)
        self._client.log_artifacts(run_id, str(model), MODEL_FOLDER)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
        files = _digests(model)
        self._client.log_dict(run_id, files, FILE_LIST)
        all_tags = {CANDIDATE: candidate, DIGEST: _digest(files), **tags}
        return _version(
            self._client.create_model_version(self.name, source, run_id=run_id, tags=all_tags, description=sentence)
        )

    def describe(self, version: ModelVersion, *, tags: Mapping[str, str], sentence: str) -> None:
        """Give a version these tags and this sentence."""
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(self.name, str(version.number), key, value[:LONGEST_TAG])
        self._client.update_model_version(self.name, str(version.number), sentence)

    def note_gate(self, version: ModelVersion, document: Mapping[str, Any]) -> None:
        """Put what the gate said last among the files of the version's run."""
        self._client.log_dict(version.run_id, finite(dict(document)), "gate.json")

    def challenge(self, version: ModelVersion) -> None:
        """Let a version be the challenger, unless it is champion already."""
        aliases = self._aliases()
        if aliases.get(CHAMPION) != version.number and aliases.get(CHALLENGER) != version.number:
            self._client.set_registered_model_alias(self.name, CHALLENGER, str(version.number))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One promoter at a time; what an interrupted switch left is finished first."""
        with FileLock(self._lock):
            self.finish_switch()
            yield

    def replace_champion(self, before: int | None, *, by: int) -> bool:
        """Make a version champion where ``before`` still is, or none is; False where that has changed."""
        with self.locked():
            if self._aliases().get(CHAMPION) != before:
                return False
            self.switch(by)
            return True

    def switch(self, to: int, *, why: str = "promote") -> None:
        """Make a version champion and the champion before it ``previous``; only inside :meth:`locked`.

        What is to be is noted first, so that a switch cut off anywhere is finished by whoever comes next.
        """
        before = self._aliases().get(CHAMPION)
        if before == to:
            return
        intent = {"to": to, "from": before, "why": why}
        self._client.set_registered_model_tag(self.name, INTENT, json.dumps(intent))
        self.finish_switch()

    def finish_switch(self) -> str | None:
        """Carry out the switch that is noted; gives why it was begun, None where none is."""
        model = self._model()
        if model is None or INTENT not in model.tags:
            return None
        intent = json.loads(model.tags[INTENT])
        if intent["why"] == ROLLBACK:
            self._client.set_model_version_tag(self.name, str(intent["from"]), ROLLED_BACK, "true")
        elif intent["from"] is not None:
            self._client.set_registered_model_alias(self.name, PREVIOUS, str(intent["from"]))
        self._client.set_registered_model_alias(self.name, CHAMPION, str(intent["to"]))
        if intent["why"] == ROLLBACK and PREVIOUS in self._aliases():
            self._client.delete_registered_model_alias(self.name, PREVIOUS)
        if self._aliases().get(CHALLENGER) == intent["to"]:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)
        self._client.delete_registered_model_tag(self.name, INTENT)
        return str(intent["why"])

    def rollback(self) -> int:
        """Make the champion before this one champion again, and give its number; the other is marked as rolled back.

        There is no ``previous`` afterwards, so that a second call cannot undo the first. One that was cut off is finished and
        no other done. Raises UserError where there is none to go back to.
        """
        with FileLock(self._lock), store_errors_as_outages(self.uri):
            if self.finish_switch() != ROLLBACK:
                champion, previous = self.by_alias(CHAMPION), self.by_alias(PREVIOUS)
                if champion is None or previous is None or champion.number == previous.number:
                    raise UserError(f"{self.name}: has no {PREVIOUS} champion to go back to")
                self.switch(previous.number, why=ROLLBACK)
            now = self.by_alias(CHAMPION)
            assert now is not None
            return now.number

    def download(self, version: ModelVersion, *, folder: Path) -> Path:
        """The files of a version in ``folder``. Raises UserError where they are not those that were registered."""
        return download(self.uri, version.uri, folder=folder)

    def _model(self) -> Any:
        return find_model(self._client, self.name)

    def _aliases(self) -> dict[str, int]:
        model = self._model()
        return {} if model is None else {alias: int(number) for alias, number in model.aliases.items()}


@contextmanager
def store_errors_as_outages(uri: str) -> Iterator[None]:
    """Inside, what MLflow's store refuses or cannot do is what :func:`store_failure` says of it."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise store_failure(uri, error) from error


def download(uri: str, model_uri: str, *, folder: Path) -> Path:
    """The files of ``models:/NAME@alias`` or ``models:/NAME/1`` in ``folder``, verified.

    Raises UserError for a model that does not exist, and for files that are not those that were registered.
    """
    version = resolve(uri, model_uri)
    with store_errors_as_outages(uri):
        # By the run that holds them: what becomes of models:/… MLflow looks up in a store of the whole process.
        files = mlflow.artifacts.download_artifacts(
            run_id=version.run_id, artifact_path=MODEL_FOLDER, dst_path=str(folder), tracking_uri=uri
        )
    path = Path(files)
    actual = _digests(path)
    expected = {key.removeprefix(OLD_TAGS): value for key, value in version.tags.items() if key.startswith(OLD_TAGS)}
    if DIGEST not in version.tags and not expected:
        raise UserError(f"{version.uri}: has no checksums; only versions made by `promote` are loaded")
    if _digest(actual) != version.tags.get(DIGEST, _digest(expected)):
        wrong = _differing(actual, expected or _listed(version, uri=uri))
        raise UserError(f"{version.uri}: {wrong} is not the file that was registered; it is not loaded")
    return path


def _listed(version: ModelVersion, *, uri: str) -> dict[str, str]:
    """The digests of a version's files as they were registered; nothing where their list is gone or another."""
    try:
        with TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(
                run_id=version.run_id, artifact_path=FILE_LIST, dst_path=folder, tracking_uri=uri
            )
            listed = json.loads(Path(path).read_text())
    except (MlflowException, OSError, ValueError, RecursionError):
        return {}
    return listed if isinstance(listed, dict) and _digest(listed) == version.tags[DIGEST] else {}


def _digests(model: Path) -> dict[str, str]:
    """SHA-256 of every file of a model by its path, but of what MLflow itself may have added."""
    return {name: digest for name, digest in hashes(model).items() if name != ADDED_BY_MLFLOW}


def _differing(actual: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """The first file whose digest is another; ``one of its files`` where it is not known what they were."""
    names = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    return repr(names[0]) if expected else "one of its files"


def _digest(files: Mapping[str, str]) -> str:
    """One digest of the digests of all."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def resolve(uri: str, model_uri: str) -> ModelVersion:
    """The version that an address names. Raises UserError for one that there is not, StoreFailsError."""
    named = sqlite_file(uri)
    if named is not None and not named[0].is_file():
        raise UserError(f"tracking.uri: {masked_address(uri)!r} does not exist; --uri says where MLflow is")
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", model_uri)
    if parts is None:
        raise UserError(f"{model_uri!r} is no model; must be like models:/NAME@champion or models:/NAME/1")
    name, alias, number = parts.groups()
    with store_errors_as_outages(uri):
        client = MlflowClient(uri, registry_uri=uri)
        model = find_model(client, name)
        if model is None:
            names = [other.name for other in client.search_registered_models()]
            raise UserError(f"{model_uri}: no model {name!r} in {masked_address(uri)}{nearest(name, names)}")
    try:
        with store_errors_as_outages(uri):
            if alias is not None:
                return _version(client.get_model_version_by_alias(name, alias))
            return _version(client.get_model_version(name, number))
    except StoreFailsError as error:
        if getattr(error.__cause__, "error_code", None) not in NOT_THERE:
            raise
        offered = ", ".join(f"@{existing}" for existing in sorted(model.aliases)) or "no alias yet"
        raise UserError(f"{model_uri}: there is no such version; {name!r} has {offered}") from error


def find_model(client: MlflowClient, name: str) -> Any:
    """The registered model of a name; None where there is none."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def log_files(uri: str, *, run_id: str, files: Sequence[Path], under: str | None = None) -> None:
    """Put files among the artifacts of a run, in a folder of them or on top."""
    with store_errors_as_outages(uri):
        for file in files:
            MlflowClient(uri).log_artifact(run_id, str(file), under)


def _version(stored: StoredVersion) -> ModelVersion:
    return ModelVersion(name=stored.name, number=int(stored.version), tags=dict(stored.tags), run_id=str(stored.run_id))


def _lock_path(uri: str, *, name: str, folder: Path) -> Path:
    """Beside an SQLite file, which has one place; else in the folder of all searches, which promoters share."""
    named = sqlite_file(uri)
    if named is not None:
        folder = named[0].parent
    return folder.absolute() / f".{name}.promotion.lock"
