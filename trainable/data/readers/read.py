"""Reads the data set that a configuration names, whatever its format."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from trainable.config.trial import DataConfig
from trainable.data.readers.domains import join_domains
from trainable.data.readers.elpv import read_elpv
from trainable.data.readers.folder import IMAGE_SUFFIXES, read_folder
from trainable.data.readers.manifest import CSV_SUFFIXES, read_manifest
from trainable.data.readers.sample import Found, Source, make_source
from trainable.data.readers.storage import exists, is_address, is_folder
from trainable.data.readers.table import TABLE_SUFFIXES, holds_bytes, read_table
from trainable.errors import UserError, nearest

READERS: dict[str, Callable[[str, DataConfig], Found]] = {
    "folder": read_folder,
    "manifest": read_manifest,
    "table": read_table,
    "elpv": read_elpv,
}


def read_source(config: DataConfig) -> Source:
    """The samples that ``config`` names, no image read yet; a UserError says what is wrong with them."""
    if config.target is not None:
        return join_domains(config, read=_find)
    data = _find(config)
    return make_source(data.samples, files=data.files)


def data_path(config: DataConfig) -> str:
    """``config.path`` as a path of this machine, or as the address that it is."""
    return config.path if is_address(config.path) else str(Path(config.path).expanduser())


def data_format(config: DataConfig) -> str:
    """How ``config.path`` is read, an entry of ``READERS``; a UserError where there is nothing that can be read."""
    if config.format == "elpv":
        return "elpv"
    if not config.path:
        raise UserError("data.path: is empty; name a folder, a CSV, a Parquet or an Arrow file")
    path = data_path(config)
    if not exists(path):
        raise UserError(f"data.path: {config.path!r} does not exist{nearest(path, _neighbours(path))}")
    if is_address(path):
        return _detect_there(path, config)
    if config.format != "auto":
        return config.format
    with whole_files(config):
        return _detect(path, config)


@contextmanager
def whole_files(config: DataConfig) -> Iterator[None]:
    """Says in one line that a file which is read here is gone, cut off, or another kind of file than its name says."""
    try:
        yield
    except OSError as error:
        raise UserError(f"data.path: {config.path!r} cannot be read ({' '.join(str(error).split())})") from error
    except pa.ArrowInvalid as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"data.path: {config.path!r} is no whole Parquet, Arrow or CSV file ({reason})") from error


def _find(config: DataConfig) -> Found:
    read = READERS[data_format(config)]
    with whole_files(config):
        data = read(data_path(config), config)
    for sample in data.samples:
        _check_name(sample.name)
    return data


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"data.path: the name of image {name!r} is no UTF-8; rename it") from error


def _neighbours(path: str) -> list[str]:
    parent = Path(path).parent
    return [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []


def _detect_there(path: str, config: DataConfig) -> str:
    is_table = path.lower().endswith(TABLE_SUFFIXES) or is_folder(path)
    if config.format not in ("auto", "table") or not is_table:
        kinds = "Parquet, Arrow and Feather files that hold the images themselves"
        raise UserError(f"data.path: {config.path!r} is an address, and what is read from one are {kinds}")
    return "table"


def _detect(path: str, config: DataConfig) -> str:
    if is_folder(path):
        return "table" if _holds_tables(path) else "folder"
    suffix = Path(path).suffix.lower()
    if suffix in CSV_SUFFIXES:
        return "manifest"
    if suffix in TABLE_SUFFIXES:
        return "table" if holds_bytes(path, config) else "manifest"
    expected = ", ".join([*CSV_SUFFIXES, *TABLE_SUFFIXES])
    raise UserError(f"data.path: {config.path!r} is neither a folder nor one of {expected}")


def _holds_tables(path: str) -> bool:
    """Whether Parquet files lie in a folder, or below it before any image does; not every folder of images is walked."""
    if any(Path(path).glob("*.parquet")):
        return True
    for _, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            return False
        if any(name.endswith(".parquet") and name[0] != "." for name in names):
            return True
    return False
