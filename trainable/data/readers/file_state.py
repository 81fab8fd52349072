"""Tells without reading an image whether the files of a data set are those they were."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from trainable.config.trial import DataConfig
from trainable.data.readers.domains import data_sets, naming
from trainable.data.readers.elpv import elpv_folder, read_elpv
from trainable.data.readers.folder import image_names
from trainable.data.readers.manifest import listed_images
from trainable.data.readers.read import data_format, data_path, whole_files
from trainable.data.readers.storage import exists, file_in, file_state, is_address, is_folder
from trainable.data.readers.table import table_files

# The path of a file from the data set on, the path or address where it is. A path that ends with a slash is a folder's, of
# which only the date is asked: what is deleted or renamed leaves no other trace.
Listed = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class QuickState:
    """What can be seen of a data set's files from outside.

    ``key``, 32 hex digits, is of their paths within the data set, sizes and dates: while it stays the same, nothing has
    changed. ``newest`` is when the latest of them or of their folders was written, in seconds since 1970; a key taken less
    than 2 s after that may miss what is written in the same tick of the file system's clock.
    """

    key: str
    num_files: int
    newest: float


def quick_state(config: DataConfig) -> QuickState:
    """The state of every file that ``config`` reads, of all its domains. Raises the UserErrors of a path that is not there.

    Images of a folder count wherever they lie in it. A million files take seconds, each the time of asking for its state.
    """
    digest, num_files, newest_ns = blake3(), 0, 0
    for field, data_set in data_sets(config):
        digest.update(f"{field}\n".encode())
        with naming(field), whole_files(data_set):
            for name, file in LISTERS[data_format(data_set)](data_path(data_set), data_set):
                state = file_state(file)
                newest_ns = max(newest_ns, state.mtime_ns if state else 0)
                if not name.endswith("/"):
                    num_files += 1
                    digest.update(os.fsencode(f"{name}\0{state.size}\0{state.mtime_ns}\n" if state else f"{name}\n"))
    return QuickState(digest.hexdigest(length=16), num_files, newest_ns / 1_000_000_000)


def has_marker(config: DataConfig, name: str) -> bool:
    """Whether a file such as `_SUCCESS` lies in the folder of each of the data sets, beside a data set that is a file."""
    return all(exists(file_in(_folder_of(data_set), name)) for _, data_set in data_sets(config))


def _list_folder(path: str, _config: DataConfig) -> Listed:
    for folder, names in image_names(path):
        inner = f"{Path(folder).relative_to(path).as_posix()}/"
        yield inner, folder
        yield from ((inner + name, os.path.join(folder, name)) for name in names)  # noqa: PTH118 - as in folder


def _list_manifest(path: str, config: DataConfig) -> Listed:
    yield Path(path).name, path
    yield from sorted(listed_images(path, config).items())


def _list_table(path: str, _config: DataConfig) -> Listed:
    files = table_files(path)
    yield from ((file.name, file.file) for file in files)
    if is_folder(path) and not is_address(path):
        folders = {str(Path(file.file).parent) for file in files}
        yield from ((f"{folder}/", folder) for folder in {path, *folders})


def _list_elpv(path: str, config: DataConfig) -> Listed:
    yield from ((Path(file).name, file) for file in read_elpv(path, config).files)


LISTERS: dict[str, Callable[[str, DataConfig], Listed]] = {
    "folder": _list_folder,
    "manifest": _list_manifest,
    "table": _list_table,
    "elpv": _list_elpv,
}


def _folder_of(config: DataConfig) -> str:
    if config.format == "elpv":
        return str(elpv_folder())
    path = data_path(config).rstrip("/")
    return path if is_folder(path) else path.rpartition("/")[0] or "."
