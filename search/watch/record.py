"""What is known of a watched space: its record, and whether somebody watches it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from search.ledger.lease import hold_lock, is_locked, writing_errors
from search.space.spec import SearchSpec
from trainable.atomic import make_private_folder, write_beside
from trainable.json_text import to_json

FOLDER = ".watch"  # in the folder of all searches
TIMES = ("due", "began", "ended", "retry_at", "next_due", "next_run")


@dataclass(frozen=True, kw_only=True)
class WatchRecord:
    """Where the watch of a space stands.

    ``when`` says in words when it is refreshed; process ``pid`` on ``host`` watches it, or did. Of its last refresh are kept
    when it was ``due``, ``began`` and ``ended``, its ``exit_code``, and as its ``decision`` what it wrote; while the next
    ``is_at_work``, when that was due and began, and how the one before ended. It is begun again at
    ``retry_at`` after ``num_failures`` in a row or where it asked for that, at ``next_due`` by the schedule, which is none
    where changes are waited for: at ``next_run`` therefore, if nothing changes before.
    """

    name: str
    space: str
    when: str
    pid: int
    host: str
    due: datetime | None = None
    is_at_work: bool = False
    began: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    decision: dict[str, Any] | None = None
    num_failures: int = 0
    retry_at: datetime | None = None
    next_due: datetime | None = None
    next_run: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {key: value.isoformat() if key in TIMES and value else value for key, value in asdict(self).items()}


def open_record(spec: SearchSpec, *, path: Path, when: str) -> WatchRecord:
    """The record of a space that this process watches, with what is known from before."""
    earlier = read_record(spec) or WatchRecord(name=spec.search.name, space="", when="", pid=0, host="")
    return replace(earlier, space=str(path), when=when, pid=os.getpid(), host=socket.gethostname())


def read_record(spec: SearchSpec) -> WatchRecord | None:
    """The record of a space; None where there is none that can be read, as if it had never been watched."""
    try:
        document: dict[str, Any] = json.loads(_place(spec, "json").read_text())
        return WatchRecord(**document | {key: _time(document[key]) for key in TIMES})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_record(record: WatchRecord, *, spec: SearchSpec) -> None:
    """Put the record of a space in the place of the one before; raises UserError where it cannot be written."""
    place = _place(spec, "json")
    with writing_errors(place):
        make_private_folder(place.parent)
        with write_beside(place) as file:
            file.write(to_json(record.as_dict(), indent=1).encode())


@contextmanager
def watched(spec: SearchSpec) -> Iterator[None]:
    """Hold the watch of a space for this process; raises HeldError where another one holds it.

    The kernel gives it back when the process ends, however it ends.
    """
    with hold_lock(
        _place(spec, "lock"), refused=lambda: f"{spec.search.name}: is watched already, by {_watcher(spec)}"
    ):
        yield


def is_watched(spec: SearchSpec) -> bool:
    """Whether some process watches a space; shares its lock for a moment to find out."""
    return is_locked(_place(spec, "lock"))


def _place(spec: SearchSpec, ending: str) -> Path:
    return Path(spec.search.folder) / FOLDER / f"{spec.search.name}.{ending}"


def _watcher(spec: SearchSpec) -> str:
    record = read_record(spec)
    return "another process" if record is None else f"process {record.pid} on {record.host}"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
