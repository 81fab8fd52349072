"""Reads tables that hold the encoded images themselves: Parquet, Arrow, Feather."""

from functools import cached_property, partial
from pathlib import PurePosixPath
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as pa_dataset

from trainable.config.trial import DataConfig
from trainable.data.readers.arrow_files import foreign_schema, load_foreign
from trainable.data.readers.columns import read_columns, require_column, wanted_columns
from trainable.data.readers.sample import SPLIT_NAMES, Found, Sample
from trainable.data.readers.storage import file_in, files_below, is_folder
from trainable.errors import UserError

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")

_LOADING = Lock()  # of an image column: threads that ask for images of one file must not each load it


class TableFile(NamedTuple):
    """A file of a table: its path or address, and its path from the table's folder, `split=train/part-0.parquet`."""

    file: str
    name: str


def read_table(path: str, config: DataConfig) -> Found:
    """One image a row, in one file or in all Parquet files of a folder, on a disk or behind an address.

    The image column holds bytes or Hugging Face's ``struct<bytes, path>``. A folder named as `split=train` gives all rows
    below it that value of that column, as text. Where no column gives the split and each file or the uppermost folder it
    is in is named by one (``train-00000-of-00002.parquet``), the names do. The encoded images of a Parquet file are held
    in memory from the first one read on.
    """
    files = table_files(path)
    if not files:
        raise UserError(f"data.path: {config.path!r} has no Parquet files")
    named = [_split_in_name(file) if file.file != path else None for file in files]
    samples: list[Sample] = []
    for file, split in zip(files, named if all(named) else [None] * len(files), strict=True):
        samples += _samples(file, split=split, config=config)
    return Found(samples, [file.file for file in files])


def table_files(path: str) -> list[TableFile]:
    """The file, or every Parquet file below the folder but those that are hidden or in a folder such as `_temporary`."""
    if not is_folder(path):
        return [TableFile(path, PurePosixPath(path).name)]
    names = [name for name in files_below(path) if _is_part(name)]
    return [TableFile(file_in(path, name), name) for name in sorted(names, key=lambda name: name.split("/"))]


def holds_bytes(path: str, config: DataConfig) -> bool:
    """Whether the image column holds the images; else it holds their paths."""
    schema = foreign_schema(path)
    require_column(schema.names, config.image_column, field="image_column")
    return not _is_text(schema.field(config.image_column).type)


class _ImageColumn:
    """One file's image column, read when its first image is."""

    def __init__(self, file: str, *, name: str) -> None:
        self.file, self.name = file, name

    @cached_property
    def values(self) -> pa.ChunkedArray:
        try:
            return load_foreign(self.file, [self.name])[self.name]
        except (OSError, pa.ArrowInvalid) as error:  # not one bad image: a connection, a file that was there before
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"data.path: {self.file!r} cannot be read to its end ({reason})") from error

    def read(self, row: int) -> bytes:
        with _LOADING:
            values = self.values
        value = values[row]
        data: bytes | None = (value["bytes"] if isinstance(value, pa.StructScalar) else value).as_py()
        if data is None:
            raise OSError(f"row {row} holds no image")
        return data


def _is_part(name: str) -> bool:
    """Whether a file is one of a table's; the names left out are those that pyarrow, Spark and Delta Lake leave out."""
    *folders, file = name.split("/")
    return file.endswith(".parquet") and file[0] != "." and not any(folder.startswith((".", "_")) for folder in folders)


def _split_in_name(file: TableFile) -> str | None:
    return SPLIT_NAMES.get(PurePosixPath(file.name.split("/")[0]).stem.split("-")[0])


def _samples(file: TableFile, *, split: str | None, config: DataConfig) -> list[Sample]:
    schema = foreign_schema(file.file)
    require_column(schema.names, config.image_column, field="image_column")
    _check_image_type(schema.field(config.image_column).type, config=config)
    of_folders = _columns_of_folders(file.name)
    present = list(dict.fromkeys([*schema.names, *of_folders]))
    table = _with_folders(file.file, wanted_columns(present, config=config), of_folders=of_folders)
    columns = read_columns(table, config=config)
    splits = columns.splits if config.split_column in present else [split] * table.num_rows
    images = _ImageColumn(file.file, name=config.image_column)
    rows = zip(columns.labels, splits, columns.groups, columns.domains, strict=True)
    return [
        Sample(
            name=f"{file.name}:{row}",
            label=label,
            split=split,
            group=group,
            domain=domain,
            file=file.file,
            read_bytes=partial(images.read, row),
        )
        for row, (label, split, group, domain) in enumerate(rows)
    ]


def _check_image_type(kind: pa.DataType, *, config: DataConfig) -> None:
    holder = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(holder) or pa.types.is_large_binary(holder)):
        raise UserError(f"data.image_column: column {config.image_column!r} holds {kind}, expected encoded images")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _columns_of_folders(name: str) -> dict[str, str | None]:
    """The columns that folders named as Hive names them give a file; as text, since label 01 is not label 1."""
    named = [folder.partition("=")[0] for folder in name.split("/")[:-1] if "=" in folder]
    fields = pa.schema([(column, pa.string()) for column in dict.fromkeys(named)])
    values: dict[str, str | None] = pa_dataset.get_partition_keys(
        pa_dataset.partitioning(fields, flavor="hive").parse(name)
    )
    return values


def _with_folders(file: str, names: list[str], *, of_folders: dict[str, str | None]) -> pa.Table:
    """The columns ``names`` of a file; those that its folders give are all one value."""
    table = load_foreign(file, [name for name in names if name not in of_folders])
    for name in names:
        if name in of_folders:
            table = table.append_column(name, pa.array([of_folders[name]] * table.num_rows, pa.string()))
    return table
