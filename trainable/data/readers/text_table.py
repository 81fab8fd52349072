"""Reads tables of text as people have them: any separator, any common encoding."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from trainable.data.readers.findings import Finding
from trainable.errors import UserError

CSV_SUFFIXES = (".csv", ".tsv")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
MOST_AT_ONCE = 2**31 - 1  # bytes that Arrow parses in one piece, in which a line break may be quoted anywhere


@dataclass(frozen=True)
class TextTable:
    """The ``table``, all of whose columns are text, and the ``findings`` about how it had to be read."""

    table: pa.Table
    findings: tuple[Finding, ...] = ()


def read_text_table(path: Path, *, columns: Iterable[str] = ()) -> TextTable:
    """The table in a file, whose first row names the columns. Of ``columns`` none may stand in it twice.

    Text is UTF-8, UTF-16 with its mark, else Latin-1. The separator is the one that parts the first row into most columns;
    blanks around names, and behind every separator where they follow the first row's, are dropped. Raises UserError for rows of
    different lengths.
    """
    text, encoding = _decoded(path.read_bytes(), path=path)
    separator = _separator(text.lstrip().split("\n", 1)[0], path=path)
    names = next(_rows(text, separator=separator), [])
    spaced = len(names) > 1 and all(name.startswith(" ") for name in names[1:])
    stripped = [name.strip() for name in names]
    for name in columns:
        if stripped.count(name) > 1:
            raise UserError(
                f"data.path: {path.name!r} has {stripped.count(name)} columns called {name!r}; rename all but one"
            )
    table = _parsed(text, separator=separator, names=_distinct(stripped), is_spaced=spaced, path=path)
    return TextTable(table, _findings(path, separator=separator, encoding=encoding))


def _decoded(data: bytes, *, path: Path) -> tuple[str, str]:
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    encoding = encoding or ("utf-16-le" if data[1:2] == b"\0" else "utf-8")
    try:
        return data.decode(encoding).lstrip("\ufeff"), encoding
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(f"data.path: {path.name!r} is cut off, or no {encoding} text; save it as UTF-8") from error
        return data.decode("latin-1"), "latin-1"


def _separator(head: str, *, path: Path) -> str:
    """The separator that parts the head into most columns; tabs for .tsv and commas else, where none does."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    numbers = {separator: len(next(csv.reader([head], delimiter=separator), [])) for separator in SEPARATORS}
    best = max(numbers.values())
    return usual if numbers[usual] == best else max(numbers, key=lambda separator: numbers[separator])


def _rows(text: str, *, separator: str, is_spaced: bool = False) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=is_spaced)


def _parsed(text: str, *, separator: str, names: Sequence[str], is_spaced: bool, path: Path) -> pa.Table:
    if is_spaced:  # which Arrow cannot drop
        return _parsed_slowly(text, separator=separator, names=names, path=path)
    data = text.encode()
    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(
                column_names=list(names), skip_rows_after_names=1, block_size=min(MOST_AT_ONCE, len(data) + 1)
            ),
            parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"data.path: {path.name!r} cannot be read: {' '.join(str(error).split())}") from None


def _parsed_slowly(text: str, *, separator: str, names: Sequence[str], path: Path) -> pa.Table:
    rows = [row for row in _rows(text, separator=separator, is_spaced=True) if row][1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise UserError(
                f"data.path: {path.name!r} cannot be read: row {number} has {len(row)} values, the first has {len(names)}"
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)})


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, one that was there before with a number."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return distinct


def _findings(path: Path, *, separator: str, encoding: str) -> tuple[Finding, ...]:
    notes = []
    if encoding == "latin-1":
        notes.append("is no UTF-8 and was read as Latin-1; save it as UTF-8 if names look wrong")
    elif encoding.startswith("utf-16"):
        notes.append("was read as UTF-16")
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        notes.append(f"has its columns parted by {SEPARATORS[separator]}")
    return tuple(Finding(kind="list", count=1, text=f"{path.name!r} {note}") for note in notes)
