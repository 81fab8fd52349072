"""Looks at files without reading them."""

import os
from typing import NamedTuple


class FileState(NamedTuple):
    """What changes with a file: its size in bytes, and when it was written, in nanoseconds since 1970."""

    size: int
    mtime_ns: int


def is_address(path: str) -> bool:
    """Whether a path is an address such as ``s3://bucket/images`` rather than a place on this machine's disks."""
    return "://" in path


def file_state(file: str) -> FileState | None:
    """The state of a file, of what it leads to where it is a link; None where there is none."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a million Path objects take seconds
    except FileNotFoundError:  # a link to nowhere, a bad image later on
        return None
    return FileState(status.st_size, status.st_mtime_ns)
