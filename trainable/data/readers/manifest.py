"""Reads a list of image paths: CSV or Parquet."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from trainable.config.trial import DataConfig
from trainable.data.readers.columns import read_columns, require_column, text_column, wanted_columns
from trainable.data.readers.sample import Found, Sample, file_reader
from trainable.errors import UserError

CSV_SUFFIXES = (".csv", ".tsv")


def read_manifest(path: str, config: DataConfig) -> Found:
    """One image a row; paths are absolute or relative to the manifest's folder."""
    table = _read(Path(path), config)
    require_column(table.column_names, config.image_column, field="image_column")
    wanted_columns(table.column_names, config=config)
    columns = read_columns(table, config=config)
    names = [name or "" for name in text_column(table, config.image_column, field="image_column")]
    files = _image_files(names, path=path)
    _check_readable(names, files)
    rows = zip(names, columns.labels, columns.splits, columns.groups, columns.domains, files, strict=True)
    samples = [
        Sample(
            name=name,
            label=label,
            split=split,
            group=group,
            domain=domain,
            file=file,
            read_bytes=file_reader(file),
        )
        for name, label, split, group, domain, file in rows
    ]
    return Found(samples, [path, *files])


def listed_images(path: str, config: DataConfig) -> dict[str, str]:
    """The file of every image that the manifest names, by that name; whether it is there is not looked at."""
    table = _read(Path(path), config)
    require_column(table.column_names, config.image_column, field="image_column")
    names = {name or "" for name in text_column(table, config.image_column, field="image_column")}
    return dict(zip(names, _image_files(names, path=path), strict=True))


def _image_files(names: Iterable[str], *, path: str) -> list[str]:
    folder = os.path.dirname(path)  # noqa: PTH120 - none for a manifest here, where Path says `.`
    return [os.path.join(folder, name) for name in names]  # noqa: PTH118 - a million Path objects take seconds


def _read(path: Path, config: DataConfig) -> pa.Table:
    if path.suffix.lower() == ".parquet":
        return pq.ParquetFile(path).read()
    if path.suffix.lower() not in CSV_SUFFIXES:
        raise UserError(f"data.path: {config.path!r} is no manifest, expected .csv, .tsv or .parquet")
    names = [config.image_column, config.label_column, config.split_column, config.group_column, config.domain_column]
    as_text = {name: pa.string() for name in names if name is not None}  # label 01 is not label 1
    try:
        return pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ","),
            convert_options=pa_csv.ConvertOptions(column_types=as_text),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"data.path: {config.path!r} cannot be read: {' '.join(str(error).split())}") from None


def _check_readable(names: list[str], files: list[str]) -> None:
    missing = [
        name for name, file in zip(names, files, strict=True) if not (Path(file).is_file() and os.access(file, os.R_OK))
    ]
    if missing:
        raise UserError(f"data.path: {len(missing)} of {len(names)} images cannot be read, the first is {missing[0]!r}")
