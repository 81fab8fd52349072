"""Finds files on this machine's disks or behind an address such as `s3://bucket/images` (the door of fsspec)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pa_fs
from fsspec.core import url_to_fs

from trainable.data.readers.walk import Walk
from trainable.errors import OutageError, UserError
from trainable.masking import holds_secret, masked, masked_address

# What an address may begin with: stores that hold files, the disks of this machine, the memory of this process. Others of
# fsspec's fifty read any web page, other machines and other addresses.
STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "hf")
PROTOCOLS = (*STORES, "file", "memory")


class FileState(NamedTuple):
    """What changes with a file: its size in bytes, and when it was written, in nanoseconds since 1970."""

    size: int
    mtime_ns: int


def is_address(path: str) -> bool:
    """Whether a path is an address such as ``s3://bucket/images`` rather than a place on this machine's disks."""
    return "://" in path


def exists(path: str) -> bool:
    """Whether there is a file or a folder. Raises UserError for an address that is refused, OutageError for no answer."""
    return _look(path) is not None if is_address(path) else Path(path).exists()


def is_folder(path: str) -> bool:
    """Whether there is a folder. Raises UserError for an address that is refused, OutageError for no answer."""
    if not is_address(path):
        return Path(path).is_dir()
    entry = _look(path)
    return entry is not None and entry["type"] == "directory"


def files_below(folder: str) -> list[str]:
    """Every file below a folder, however deep, as its path from there; links are followed once."""
    if is_address(folder):
        filesystem, root = _locate(folder)
        with _naming_errors(folder):
            return [path.removeprefix(root).lstrip("/") for path in filesystem.find(root)]
    walk, files = Walk(), []
    walk.enter(folder)
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if walk.enter(os.path.join(parent, name))]  # noqa: PTH118
        files += [(Path(parent).relative_to(folder) / name).as_posix() for name in names]
    return files


def file_in(folder: str, name: str) -> str:
    """The path or address of the file with this path from a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else str(Path(folder, name))


def file_state(file: str) -> FileState | None:
    """The state of a file, of what it leads to where it is a link; None where there is none."""
    try:
        if is_address(file):
            return _state_there(file)
        status = os.stat(file)  # noqa: PTH116 - a million Path objects take seconds
    except OSError:  # a link to nowhere or to itself, a bad image later on
        return None
    return FileState(status.st_size, status.st_mtime_ns)


def arrow_place(file: str) -> tuple[pa_fs.FileSystem, str]:
    """The file system of a file as Arrow wants it, and the file's path in it."""
    if not is_address(file):
        return pa_fs.LocalFileSystem(), file
    filesystem, path = _locate(file)
    return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(filesystem)), path


def open_arrow(file: str) -> pa.NativeFile:
    """A file to read from, mapped into memory where it is on a disk of this machine."""
    if not is_address(file):
        return pa.memory_map(file)
    filesystem, path = arrow_place(file)
    with _naming_errors(file):
        return filesystem.open_input_file(path)


def _look(address: str) -> dict[str, Any] | None:
    """What the store says of an address now, rather than when it was last asked."""
    filesystem, path = _locate(address)
    filesystem.invalidate_cache()
    try:
        with _naming_errors(address):
            entry: dict[str, Any] = filesystem.info(path)
    except FileNotFoundError:
        return None
    return entry


def _state_there(address: str) -> FileState:
    filesystem, path = _locate(address)
    with _naming_errors(address):
        try:
            changed = filesystem.modified(path)
        except NotImplementedError as error:
            reason = "the files there have no date of change, without which it cannot be told that they changed"
            raise UserError(f"data.path: {address!r} cannot be used; {reason}") from error
        return FileState(int(filesystem.size(path)), round(changed.timestamp() * 1_000_000_000))


def _locate(address: str) -> tuple[Any, str]:
    _check_allowed(address)
    try:
        filesystem, path = url_to_fs(address)
    except (ImportError, ValueError) as error:  # no package for the protocol, no such protocol
        raise _unreachable(address, error, kind=UserError) from error
    except OSError as error:  # some connect at once
        raise _unreachable(address, error, kind=OutageError) from error
    return filesystem, path


def _check_allowed(address: str) -> None:
    if "::" in address or address.partition("://")[0] not in PROTOCOLS:
        raise UserError(
            f"data.path: {masked_address(address)!r} is no address that is read; one begins with {', '.join(STORES)} and `://`, "
            "and leads to no other one (`::`)"
        )
    if "?" in address or holds_secret(address):
        raise UserError(
            f"data.path: {masked_address(address).partition('?')[0]!r} has a password or a query (`?`), which would be kept with "
            "the results; give credentials as the store's own programs take them, in their files or the environment"
        )


@contextmanager
def _naming_errors(address: str) -> Iterator[None]:
    """Says in one line what a store fails with, a UserError for what it refuses; that there is no such file is for the caller."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:  # credentials, names of hosts, rights: each store has errors of its own
        raise _unreachable(address, error, kind=UserError if _is_refusal(error) else OutageError) from error


def _is_refusal(error: Exception) -> bool:
    """Whether a store answers, or would, but not this user."""
    return isinstance(error, PermissionError) or "Credential" in type(error).__name__


def _unreachable(
    address: str, error: Exception, *, kind: type[UserError] | type[OutageError]
) -> UserError | OutageError:
    reason = (masked(str(error).strip()) or type(error).__name__).splitlines()[0]
    return kind(f"data.path: {masked_address(address)!r} cannot be reached ({reason})")
