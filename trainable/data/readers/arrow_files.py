"""Opens Parquet and Arrow files, whoever wrote them (the one door of such files).

A Python extension type may run what a file holds where its values are asked for: that of Ray, registered wherever Ray Tune is
imported, unpickles them. So no value is read of a file whose columns are not of Arrow's own types.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainable.data.readers.storage import arrow_place, open_arrow
from trainable.errors import UserError

EXTENSION_NAME = b"ARROW:extension:name"  # in the metadata of a field whose type nobody has registered here


def foreign_schema(file: str) -> pa.Schema:
    """The columns of a user's table at a path or an address. Raises UserError where one is not of Arrow's own types."""
    schema = _parquet(file).schema_arrow if _is_parquet(file) else _arrow(file).schema
    return _checked(schema, file=file, field="data.path")


def load_foreign(file: str, columns: list[str] | None = None) -> pa.Table:
    """The ``columns`` of a user's table, else all of them; their offsets are checked where they are mapped as they lie there.

    Raises UserError as :func:`foreign_schema` does, and pa.ArrowInvalid for a file that is cut off or malformed.
    """
    if _is_parquet(file):
        opened = _parquet(file)
        _checked(opened.schema_arrow, file=file, field="data.path")
        return opened.read(columns=columns)
    reader = _arrow(file)
    _checked(reader.schema, file=file, field="data.path")
    table = reader.read_all()
    table = table if columns is None else table.select(columns)
    table.validate(full=True)
    return table


def load_listed(path: Path, *, schema: pa.Schema, field: str) -> pa.Table:
    """The columns of ``schema`` that a Parquet file has, as the types that ``schema`` says; ``field`` is for messages.

    Raises UserError as :func:`foreign_schema` does, pa.ArrowException where a column cannot be read so.
    """
    opened = pq.ParquetFile(path)
    present = _checked(opened.schema_arrow, file=str(path), field=field).names
    wanted = pa.schema([column for column in schema if column.name in present])
    return opened.read(columns=wanted.names).select(wanted.names).cast(wanted)


def load_own(path: Path, *, schema: pa.Schema) -> pa.Table:
    """A Parquet or Arrow file that this project wrote: its columns are those of ``schema``, else pa.ArrowInvalid.

    So are its notes where ``schema`` has some. An Arrow file is mapped.
    """
    if _is_parquet(str(path)):
        parquet = pq.ParquetFile(path, page_checksum_verification=True)
        _check_equal(parquet.schema_arrow, schema, path=path)
        return parquet.read()
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    _check_equal(reader.schema, schema, path=path)
    table = reader.read_all()
    table.validate(full=True)
    return table


def _check_equal(given: pa.Schema, expected: pa.Schema, *, path: Path) -> None:
    if not given.equals(expected, check_metadata=expected.metadata is not None):
        raise pa.ArrowInvalid(f"{path} has other columns than {', '.join(expected.names)}")


def _checked(schema: pa.Schema, *, file: str, field: str) -> pa.Schema:
    for column in schema:
        for name, extension in _extensions(column, name=column.name):
            raise UserError(
                f"{field}: column {name!r} of {file!r} is of the extension type {extension!r}, whose values could be code; "
                "write the file without that column"
            )
    return schema


def _extensions(column: pa.Field, *, name: str) -> Iterator[tuple[str, str]]:
    """The parts of a column that are of a Python extension type, registered here or not, with that type's name."""
    kind = column.type
    registered = kind.extension_name if isinstance(kind, pa.ExtensionType) else None
    extension = registered or (column.metadata or {}).get(EXTENSION_NAME, b"").decode(errors="replace")
    if extension and (registered or not extension.startswith("arrow.")):  # those of Arrow itself are plain values
        yield name, extension
    if isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):  # of whose parts pyarrow counts none
        inner = kind.value_type if isinstance(kind, pa.DictionaryType) else kind.storage_type
        yield from _extensions(pa.field("values", inner), name=name)
    for index in range(kind.num_fields):
        yield from _extensions(kind.field(index), name=f"{name}.{kind.field(index).name}")


def _is_parquet(file: str) -> bool:
    return file.lower().endswith(".parquet")


def _parquet(file: str) -> pq.ParquetFile:
    filesystem, path = arrow_place(file)
    return pq.ParquetFile(path, filesystem=filesystem)


def _arrow(file: str) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """Not read where it can be mapped; Hugging Face's `datasets` writes the stream format, Feather is the file format."""
    try:
        return pa.ipc.open_file(open_arrow(file))
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(open_arrow(file))
