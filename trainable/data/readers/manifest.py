"""Reads a list of image paths: CSV or Parquet."""

import os
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from trainable.config.trial import DataConfig
from trainable.data.readers.arrow_files import load_foreign
from trainable.data.readers.columns import notes_on_columns, read_columns, require_column, text_column, wanted_columns
from trainable.data.readers.findings import Finding
from trainable.data.readers.image_paths import find_files
from trainable.data.readers.sample import Found, Sample, file_reader
from trainable.data.readers.text_table import CSV_SUFFIXES, read_text_table
from trainable.errors import UserError

METADATA = "metadata.csv"  # how Hugging Face's data sets list the images of a folder
METADATA_COLUMN = "file_name"


class Listing(NamedTuple):
    """What a list says: its table, the names of its images and the file of each."""

    table: pa.Table
    names: list[str]
    files: list[str]
    findings: tuple[Finding, ...]  # about the table
    how: tuple[Finding, ...]  # the names had to be read


def read_manifest(path: str, config: DataConfig) -> Found:
    """One image a row; paths are absolute or relative to the manifest's folder, or lead to one file each in another way."""
    listing = _listing(path, config)
    wanted_columns(listing.table.column_names, config=config)
    columns = read_columns(listing.table, config=config)
    if config.on_bad_image == "error":
        _check_readable(listing)
    rows = zip(
        listing.names, columns.labels, columns.splits, columns.groups, columns.domains, listing.files, strict=True
    )
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
    findings = (*listing.findings, *listing.how, *notes_on_columns(listing.table, config=config))
    return Found(samples, [path, *listing.files], findings=findings)


def listed_images(path: str, config: DataConfig) -> dict[str, str]:
    """The file of every image that the manifest names, by that name; whether it can be read is not looked at."""
    listing = _listing(path, config)
    return dict(zip(listing.names, listing.files, strict=True))


def _listing(path: str, config: DataConfig) -> Listing:
    table, findings = _read(Path(path), config)
    column = _image_column(table, path=path, config=config)
    names = [name or "" for name in text_column(table, column, field="image_column")]
    own = os.path.dirname(path)  # noqa: PTH120 - none for a manifest here, where Path says `.`
    folder = own if config.images is None else config.images
    files, how = find_files(names, folder=folder, preferred=Path(path).stem)
    return Listing(table, names, files, findings, how)


def _image_column(table: pa.Table, *, path: str, config: DataConfig) -> str:
    is_default = config.image_column == DataConfig.model_fields["image_column"].default
    if is_default and Path(path).name == METADATA and METADATA_COLUMN in table.column_names:
        return METADATA_COLUMN
    require_column(table.column_names, config.image_column, field="image_column")
    return config.image_column


def _read(path: Path, config: DataConfig) -> tuple[pa.Table, tuple[Finding, ...]]:
    if path.suffix.lower() == ".parquet":
        return load_foreign(str(path)), ()
    if path.suffix.lower() not in CSV_SUFFIXES:
        raise UserError(f"data.path: {config.path!r} is no manifest, expected .csv, .tsv or .parquet")
    fields = (
        config.image_column, config.label_column, config.split_column, config.group_column, config.domain_column
    )  # fmt: skip
    read = read_text_table(path, columns=[name for name in fields if name is not None])
    if path.name != METADATA:
        return read.table, read.findings
    cure = "`data.layout: classes` takes the folders beside it for classes"
    taken = Finding(kind="layout", count=1, text=f"images and labels were taken from {METADATA}", cure=cure)
    return read.table, (*read.findings, taken)


def _check_readable(listing: Listing) -> None:
    rows = zip(listing.names, listing.files, strict=True)
    missing = [(name, file) for name, file in rows if not (os.path.isfile(file) and os.access(file, os.R_OK))]  # noqa: PTH113
    if missing:
        name, file = missing[0]
        tried = os.path.abspath(file)  # noqa: PTH100
        hint = "".join(f"; {finding.line()}" for finding in listing.how)
        raise UserError(
            f"data.path: {len(missing)} of {len(listing.names)} images cannot be read, the first is {name!r}, looked for at "
            f"{tried!r}; `data.on_bad_image: skip` leaves them out{hint}"
        )
