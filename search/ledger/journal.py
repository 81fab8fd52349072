"""Optuna's journal file, opened quickly: a reader of Optuna's own reads and writes the same file."""

import gc
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult
from optuna.trial import TrialState

from trainable.errors import UserError

CHUNK_BYTES = 1 << 20
_CREATE_TRIAL = int(JournalOperation.CREATE_TRIAL)
# Nearly all lines of a ledger.
_EPOCHS = {int(JournalOperation.SET_TRIAL_USER_ATTR), int(JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE)}
_FINISHED = frozenset(state for state in TrialState if state.is_finished())


class Journal(JournalStorage):
    """The journal storage over a file, whose lines are replayed without copies when it is opened.

    Optuna copies a trial for each line of it, since somebody may hold the one before; when a file is opened nobody does. With
    100,000 epochs that is most of the time.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(_File(path))

    def _sync_with_backend(self) -> None:
        if self._replay_result.log_number_read:
            super()._sync_with_backend()
            return
        self._replay_result = _Replay(self._worker_id_prefix)
        try:
            super()._sync_with_backend()
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError) as error:
            raise UserError(f"{self._path}: is not as a search wrote it, so nothing of it is used") from error


class _File(JournalFileBackend):
    """The file, of which many lines are parsed at once when it is read from its beginning."""

    def __init__(self, path: str) -> None:
        # Its default lock is a symbolic link, which exFAT, SMB and mounted cloud drives do not have.
        super().__init__(path, lock_obj=JournalFileOpenLock(path))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Every line from this number on; one that has no end yet is left for the next call."""
        number = log_number_from
        if number == 0:
            for logs in self._read_chunks():
                number += len(logs)
                yield from logs
        yield from super().read_logs(number)

    def _read_chunks(self) -> Iterator[list[dict[str, Any]]]:
        """Lines from the first on, up to one that is not whole or no JSON: what comes of that is Optuna's to say."""
        number = offset = 0
        with Path(self._file_path).open("rb") as file:
            while lines := file.readlines(CHUNK_BYTES):
                try:
                    logs = json.loads(b"[" + b",".join(lines) + b"]") if lines[-1].endswith(b"\n") else []
                except json.JSONDecodeError:
                    return
                if len(logs) != len(lines):
                    return
                number, offset = number + len(lines), offset + sum(map(len, lines))
                self._log_number_offset[number] = offset
                yield logs


class _Replay(JournalStorageReplayResult):
    """What the lines say; those that are there at first change trials in place. Then no line is this process's own."""

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self._is_opening = True

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        if not self._is_opening:
            super().apply_logs(logs)
            return
        with no_collection():
            for log in logs:
                if log["op_code"] in _EPOCHS:
                    self._change(log)
                elif log["op_code"] == _CREATE_TRIAL:
                    self._begin(log)
                else:
                    super().apply_logs([log])
        self._is_opening = False

    def _change(self, log: dict[str, Any]) -> None:
        """Take one point of an epoch; as Optuna does, none of a trial that is not there or has ended."""
        self.log_number_read += 1
        trial = self._trials.get(log["trial_id"])
        if trial is None or trial.state in _FINISHED:
            return
        if "user_attr" in log:
            trial.user_attrs.update(log["user_attr"])
        else:
            trial.intermediate_values[log["step"]] = log["intermediate_value"]

    def _begin(self, log: dict[str, Any]) -> None:
        """Create a trial, whose distributions are parsed once for all trials that have them."""
        stored, texts, trial_id = log.pop("params", {}), log.pop("distributions", {}), len(self._trials)
        super().apply_logs([log])
        trial = self._trials.get(trial_id)
        if trial is not None:
            trial.distributions = {name: _distribution(text) for name, text in texts.items()}
            trial.params = {name: trial.distributions[name].to_external_repr(value) for name, value in stored.items()}


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage: where millions of objects are made that all stay, looking for some takes longer than making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
