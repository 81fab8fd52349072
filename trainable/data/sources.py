"""Reads the data set that a configuration names, whatever its format."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from trainable.config import DataConfig
from trainable.data.domains import join_domains
from trainable.data.elpv import read_elpv
from trainable.data.folder import read_folder
from trainable.data.manifest import CSV_SUFFIXES, read_manifest
from trainable.data.source import Found, Source, make_source
from trainable.data.table import TABLE_SUFFIXES, holds_bytes, read_table
from trainable.errors import UserError, nearest

READERS: dict[str, Callable[[Path, DataConfig], Found]] = {
    "folder": read_folder,
    "manifest": read_manifest,
    "table": read_table,
    "elpv": read_elpv,
}


def read_source(config: DataConfig) -> Source:
    """The samples that ``config`` names, no image read yet; a UserError says what is wrong with them."""
    if config.target is not None:
        return join_domains(config, read=_find)
    found = _find(config)
    return make_source(found.samples, files=found.files)


def _find(config: DataConfig) -> Found:
    path = Path(config.path).expanduser()
    if config.format == "elpv":
        return read_elpv(path, config)
    if not config.path:
        raise UserError("data.path: is empty; name a folder, a CSV, a Parquet or an Arrow file")
    if not path.exists():
        neighbours = [str(path.parent / entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"data.path: {config.path!r} does not exist{nearest(str(path), neighbours)}")
    try:
        return READERS[_detect(path, config) if config.format == "auto" else config.format](path, config)
    except pa.ArrowInvalid as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"data.path: {config.path!r} is no whole Parquet, Arrow or CSV file ({reason})") from error


def _detect(path: Path, config: DataConfig) -> str:
    if path.is_dir():
        return "table" if any(path.glob("*.parquet")) else "folder"
    suffix = path.suffix.lower()
    if suffix in CSV_SUFFIXES:
        return "manifest"
    if suffix in TABLE_SUFFIXES:
        return "table" if holds_bytes(path, config) else "manifest"
    expected = ", ".join([*CSV_SUFFIXES, *TABLE_SUFFIXES])
    raise UserError(f"data.path: {config.path!r} is neither a folder nor one of {expected}")
