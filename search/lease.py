"""One driver a search: the lease on its folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainable.errors import UserError

SECONDS_FOR_A_LOOK = 1.0  # how long somebody who only looks may hold a lock


class HeldError(UserError):
    """Another process holds the search."""


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold the search in ``folder`` for this process; raises HeldError where another one does.

    The kernel gives the lease back when the process ends, however it ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"search.folder: cannot make {folder} ({error.strerror})") from error
    lock, holder = FileLock(folder / "driver.lock"), folder / "driver.json"
    try:
        lock.acquire(timeout=SECONDS_FOR_A_LOOK)
    except Timeout as error:
        raise HeldError(f"{folder}: this search is being run by {_described(holder)}") from error
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether some process is driving the search; takes the lease for a moment to find out."""
    return is_locked(folder / "driver.lock")


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file; takes it for a moment to find out."""
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _described(holder: Path) -> str:
    try:
        content = json.loads(holder.read_text())
        return f"process {content['pid']} on {content['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
