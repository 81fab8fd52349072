"""Writes a file that is either whole or not there."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)  # what passes without the user's doing anything else
NAME_DIGITS = 8  # hexadecimal, of a name that no other writer has


@contextmanager
def write_beside(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place when the block ends well and vanishes when it does not.

    Several may write one path at once: each has a file of its own, under a name that nobody can foresee, and the last to end
    stays. The next one deletes what a killed one left. No link is followed, and who may not read the folder may not read the
    file.
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


def make_private_folder(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user alone; one that is there keeps the rights it has."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # which says so where it is a file


def _delete_leftovers(path: Path) -> None:
    """Delete the files of killed writers: nobody holds them, since the kernel gives a lock back when its process ends."""
    for leftover in path.parent.glob(f"{escape(path.name)}.{'[0-9a-f]' * NAME_DIGITS}.tmp"):
        with suppress(OSError), open(leftover, "rb", opener=_unfollowed) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held by its writer, or deleted by another one
            leftover.unlink()


def _open_beside(path: Path) -> BinaryIO:
    """A new file that is held while it is open; another one where it was taken for a leftover before it was held."""
    rights = 0o666 & path.parent.stat().st_mode
    while True:
        name = path.with_name(f"{path.name}.{uuid4().hex[:NAME_DIGITS]}.tmp")
        file = open(name, "xb", opener=partial(_unfollowed, rights=rights))  # noqa: SIM115 - what is written to by the caller
        with suppress(OSError):  # a file system without locks, where no leftover can be told from what is at work
            fcntl.flock(file, fcntl.LOCK_EX)
        if Path(file.name).exists():
            return file
        file.close()


def _unfollowed(path: str, flags: int, *, rights: int = 0) -> int:
    """Open a file that is no link; a pipe that somebody put there is not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, rights)
