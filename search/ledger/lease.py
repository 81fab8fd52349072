"""One driver a search: the lease on its folder."""

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainable.atomic import OF_DISK, make_private_folder, write_beside
from trainable.errors import OutageError, UserError

LOCK = "driver.lock"
SECONDS_FOR_A_LOOK = 1.0  # how long somebody who only looks may hold a lock


class HeldError(OutageError):
    """Another process holds the search."""


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold the search in ``folder`` for this process; raises HeldError where another one does.

    The kernel gives the lease back when the process ends, however it ends.
    """
    holder = folder / "driver.json"
    refused = f"{folder}: this search is being run by"
    with hold_lock(folder / LOCK, refused=lambda: f"{refused} {_described(holder)}"):
        with writing_errors(holder), write_beside(holder) as file:
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield


def is_held(folder: Path) -> bool:
    """Whether some process is driving the search; shares its lock for a moment to find out."""
    return is_locked(folder / LOCK)


@contextmanager
def hold_lock(path: Path, *, refused: Callable[[], str]) -> Iterator[None]:
    """Hold a lock file for this process, made with its folder; raises HeldError with the words of ``refused`` if another does.

    Raises what :func:`writing_errors` does for a file that cannot be written.
    """
    lock = FileLock(path)
    with writing_errors(path):
        make_private_folder(path.parent)
        try:
            lock.acquire(timeout=SECONDS_FOR_A_LOOK)
        except Timeout as error:
            raise HeldError(refused()) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file; shares it for a moment to find out, for which reading it is enough."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise UserError(f"search.folder: cannot read {path} ({error.strerror})") from error
    return False


@contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """Inside, that a file of a search cannot be written is one line.

    It is an OutageError where the disk is full or fails, else a UserError.
    """
    try:
        yield
    except OSError as error:
        of_disk = error.errno in OF_DISK
        raise (OutageError if of_disk else UserError)(
            f"search.folder: cannot write {path} ({error.strerror})"
        ) from error


def _described(holder: Path) -> str:
    try:
        content = json.loads(holder.read_text())
        return f"process {content['pid']} on {content['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
