"""Reads the data set that a configuration names, whatever its format."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa

from trainable.config.trial import DataConfig
from trainable.data.readers.domains import join_domains
from trainable.data.readers.elpv import read_elpv
from trainable.data.readers.folder import read_folder
from trainable.data.readers.manifest import METADATA, METADATA_COLUMN, read_manifest
from trainable.data.readers.sample import Found, Sample, Source, make_source, plain_label
from trainable.data.readers.storage import exists, is_address, is_folder
from trainable.data.readers.table import TABLE_SUFFIXES, holds_bytes, read_table
from trainable.data.readers.text_table import CSV_SUFFIXES, read_text_table
from trainable.data.readers.walk import Walk, is_image
from trainable.errors import UserError

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
    return make_source(data)


def data_path(config: DataConfig) -> str:
    """``config.path`` as a path of this machine, or as the address that it is; of a folder whose images are listed in a
    metadata.csv with their labels, that list.
    """
    if is_address(config.path):
        return config.path
    path = Path(config.path).expanduser()
    return str(path / METADATA) if _has_metadata(path, config) else str(path)


def data_format(config: DataConfig) -> str:
    """How ``config.path`` is read, an entry of ``READERS``; a UserError where there is nothing that can be read."""
    if config.format == "elpv":
        return "elpv"
    if not config.path:
        raise UserError("data.path: is empty; name a folder, a CSV, a Parquet or an Arrow file")
    path = data_path(config)
    if not exists(path):
        raise UserError(f"data.path: {config.path!r} does not exist{_nearest_path(path)}")
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
    except (pa.ArrowException, ValueError, RecursionError) as error:  # whatever malformed files make of a reader
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"data.path: {config.path!r} is no whole Parquet, Arrow or CSV file ({reason})") from error


def _find(config: DataConfig) -> Found:
    kind = data_format(config)
    with _naming_the_folder(config, is_table=kind == "table"), whole_files(config):
        data = READERS[kind](data_path(config), config)
    for sample in data.samples:
        _check_name(sample.name)
    return data if config.labels == "exact" else data._replace(samples=_with_plain_labels(data.samples))


@contextmanager
def _naming_the_folder(config: DataConfig, *, is_table: bool) -> Iterator[None]:
    """Says of a folder that was read for the Parquet files in it that there is another way to read it."""
    try:
        yield
    except UserError as error:
        path = data_path(config)
        is_guess = is_table and config.format == "auto" and not is_address(path) and is_folder(path)
        if not is_guess or not any(names for _, names in Walk().images(path)):
            raise
        raise UserError(
            f"{error}; the folder was read for its Parquet files, `data.format: folder` reads its images"
        ) from error


def _with_plain_labels(samples: Sequence[Sample]) -> list[Sample]:
    return [sample if not sample.label else replace(sample, label=plain_label(sample.label)) for sample in samples]


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"data.path: the name of image {name!r} is no UTF-8; rename it") from error


def _has_metadata(folder: Path, config: DataConfig) -> bool:
    if config.format not in ("auto", "manifest") or config.layout != "auto" or not (folder / METADATA).is_file():
        return False
    return {METADATA_COLUMN, config.label_column} <= set(read_text_table(folder / METADATA).table.column_names)


def _nearest_path(path: str) -> str:
    """What else lies there under a name like this one's; the path to it says nothing of how alike they are."""
    place = Path(path)
    names = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    near = get_close_matches(place.name, names, n=1)
    return f"; did you mean {str(place.parent / near[0])!r}?" if near else ""


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
    walk = Walk()
    walk.enter(path)
    for parent, folders, names in os.walk(path, followlinks=True):
        inner = [name for name in sorted(folders) if not name.startswith((".", "_"))]
        folders[:] = [name for name in inner if walk.enter(os.path.join(parent, name))]  # noqa: PTH118
        if any(is_image(name) for name in names):
            return False
        if any(name.endswith(".parquet") and name[0] != "." for name in names):
            return True
    return False
