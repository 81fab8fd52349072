"""Writes a file that is either whole or not there."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

NAME_DIGITS = 8  # hexadecimal, of a name that no other writer has


@contextmanager
def write_beside(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place when the block ends well and vanishes when it does not.

    Several may write one path at once: each has a file of its own, and the last to end stays. The next one deletes what a
    killed one left.
    """
    _delete_leftovers(path)
    with _open_beside(path) as file:
        beside = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _delete_leftovers(path: Path) -> None:
    """Delete the files of killed writers: nobody holds them, since the kernel gives a lock back when its process ends."""
    for leftover in path.parent.glob(f"{escape(path.name)}.{'[0-9a-f]' * NAME_DIGITS}.tmp"):
        with suppress(OSError), leftover.open("rb") as file:  # held by its writer, or deleted by another one
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            leftover.unlink()


def _open_beside(path: Path) -> BinaryIO:
    """A new file that is held while it is open; another one where it was taken for a leftover before it was held."""
    while True:
        file = path.with_name(f"{path.name}.{uuid4().hex[:NAME_DIGITS]}.tmp").open("xb")
        with suppress(OSError):  # a file system without locks, where no leftover can be told from what is at work
            fcntl.flock(file, fcntl.LOCK_EX)
        if Path(file.name).exists():
            return file
        file.close()
