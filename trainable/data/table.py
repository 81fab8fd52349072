"""Reads tables that hold the encoded images themselves: Parquet, Arrow, Feather."""

from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainable.config import DataConfig
from trainable.data.columns import read_columns, require_column, wanted_columns
from trainable.data.source import SPLIT_NAMES, Found, Sample
from trainable.errors import UserError

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")


def read_table(path: Path, config: DataConfig) -> Found:
    """One image a row, in one file or in all Parquet files of a folder.

    The image column holds bytes or Hugging Face's ``struct<bytes, path>``. Where no column gives the split and every
    file of a folder is named by one (``train-00000-of-00002.parquet``), the names do. The encoded images of a Parquet
    file are held in memory from the first one read on.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"data.path: {config.path!r} has no Parquet files")
    named = [_split_in_name(file) if path.is_dir() else None for file in files]
    samples: list[Sample] = []
    for file, split in zip(files, named if all(named) else [None] * len(files), strict=True):
        samples += _samples(file, split=split, config=config)
    return Found(samples, [str(file) for file in files])


def holds_bytes(path: Path, config: DataConfig) -> bool:
    """Whether the image column holds the images; else it holds their paths."""
    schema = _schema(path)
    require_column(schema.names, config.image_column, field="image_column")
    return not _is_text(schema.field(config.image_column).type)


class _ImageColumn:
    """One file's image column, read when its first image is."""

    def __init__(self, file: Path, *, name: str) -> None:
        self.file, self.name = file, name

    @cached_property
    def values(self) -> pa.ChunkedArray:
        return _load(self.file, [self.name])[self.name]

    def read(self, row: int) -> bytes:
        value = self.values[row].as_py()
        data: bytes | None = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError(f"row {row} holds no image")
        return data


def _samples(file: Path, *, split: str | None, config: DataConfig) -> list[Sample]:
    schema = _schema(file)
    require_column(schema.names, config.image_column, field="image_column")
    _check_image_type(schema.field(config.image_column).type, config=config)
    table = _load(file, wanted_columns(schema.names, config=config))
    columns = read_columns(table, config=config)
    splits = columns.splits if config.split_column in schema.names else [split] * table.num_rows
    images = _ImageColumn(file, name=config.image_column)
    rows = zip(columns.labels, splits, columns.groups, columns.domains, strict=True)
    where = str(file)
    return [Sample(f"{file.name}:{row}", *texts, where, partial(images.read, row)) for row, texts in enumerate(rows)]


def _check_image_type(kind: pa.DataType, *, config: DataConfig) -> None:
    holder = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(holder) or pa.types.is_large_binary(holder)):
        raise UserError(f"data.image_column: column {config.image_column!r} holds {kind}, expected encoded images")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _split_in_name(file: Path) -> str | None:
    return SPLIT_NAMES.get(file.stem.split("-")[0])


def _schema(file: Path) -> pa.Schema:
    return pq.read_schema(file) if file.suffix.lower() == ".parquet" else _arrow(file).schema


def _load(file: Path, columns: list[str]) -> pa.Table:
    if file.suffix.lower() == ".parquet":
        return pq.ParquetFile(file).read(columns=columns)
    return _arrow(file).select(columns)


def _arrow(file: Path) -> pa.Table:
    """Mapped, not read; Hugging Face's `datasets` writes the stream format, Feather is the file format."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
