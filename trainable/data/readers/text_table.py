"""Reads tables of text as people have them: any separator, any common encoding."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from trainable.data.readers.findings import Finding
from trainable.errors import UserError

CSV_SUFFIXES = (".csv", ".tsv")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MARKS = {  # the longer one first, which begins as the other
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ENCODINGS_OF_ONE_BYTE = {"latin-1": "Latin-1", "cp1252": "Windows-1252"}
ZIP_MARK = b"PK\x03\x04"  # with which a workbook of a spreadsheet begins
MOST_AT_ONCE = 2**31 - 1  # bytes that Arrow parses in one piece, in which a line break may be quoted anywhere


@dataclass(frozen=True)
class TextTable:
    """The ``table``, all of whose columns are text, and the ``findings`` about how it had to be read."""

    table: pa.Table
    findings: tuple[Finding, ...] = ()


def read_text_table(path: Path, *, columns: Iterable[str] = ()) -> TextTable:
    """The table in a file, whose first row names the columns. Of ``columns`` none may stand in it twice.

    Text is UTF-8, UTF-16, UTF-32 with its mark, else Windows-1252 or Latin-1. The separator is the one that parts the first row
    into most columns; lines before that row that are empty or name the separator (`sep=;`), blanks around names, and those
    behind every separator where they follow the first row's, are dropped, and rows without any value. Raises UserError for
    rows of different lengths.
    """
    text, encoding = _decoded(path.read_bytes(), path=path)
    text = _from_first_row(text)
    separator = _separator(re.split(r"[\r\n]", text, maxsplit=1)[0], path=path)
    names = next(_rows(text, separator=separator, path=path), [])
    spaced = len(names) > 1 and all(name.startswith(" ") for name in names[1:])
    stripped = [name.strip() for name in names]
    for name in columns:
        if stripped.count(name) > 1:
            raise UserError(
                f"data.path: {path.name!r} has {stripped.count(name)} columns called {name!r}; rename all but one"
            )
    table = _parsed(text, separator=separator, names=_distinct(stripped), is_spaced=spaced, path=path)
    return TextTable(_with_values(table), _findings(path, separator=separator, encoding=encoding))


def _decoded(data: bytes, *, path: Path) -> tuple[str, str]:
    if data.startswith(ZIP_MARK):
        raise UserError(f"data.path: {path.name!r} is a spreadsheet's workbook or another archive; save it as CSV")
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None) or _without_mark(data)
    try:
        text = data.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(f"data.path: {path.name!r} is cut off, or no {encoding} text; save it as UTF-8") from error
        text, encoding = _of_one_byte(data)
    if "\0" in text:
        raise UserError(f"data.path: {path.name!r} is no text, it holds bytes of value 0; save it as CSV in UTF-8")
    return text, encoding


def _without_mark(data: bytes) -> str:
    """UTF-16 where one half of the first letter is nothing, else UTF-8."""
    return {b"\0": "utf-16-be"}.get(data[:1], "utf-16-le" if data[1:2] == b"\0" else "utf-8")


def _of_one_byte(data: bytes) -> tuple[str, str]:
    """The text by an encoding of one byte a letter: Windows' where Latin-1 has letters that nobody can see."""
    text = data.decode("latin-1")
    if any("\x80" <= letter <= "\x9f" for letter in text):
        with suppress(UnicodeDecodeError):
            return data.decode("cp1252"), "cp1252"
    return text, "latin-1"


def _from_first_row(text: str) -> str:
    """The text from the row of names on, with the line breaks of old Macs made those of all others."""
    if "\n" not in text:
        text = text.replace("\r", "\n")
    while (line := text.partition("\n"))[1] and re.fullmatch(r"\s*|sep=.\r?", line[0]):
        text = line[2]
    return text


def _separator(head: str, *, path: Path) -> str:
    """The separator that parts the head into most columns; tabs for .tsv and commas else, where none does."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    numbers = {separator: len(next(csv.reader([head], delimiter=separator), [])) for separator in SEPARATORS}
    best = max(numbers.values())
    return usual if numbers[usual] == best else max(numbers, key=lambda separator: numbers[separator])


def _rows(text: str, *, separator: str, path: Path, is_spaced: bool = False) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=is_spaced)
    except csv.Error as error:
        raise UserError(f"data.path: {path.name!r} cannot be read: {error}") from error


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
    rows = [row for row in _rows(text, separator=separator, path=path, is_spaced=True) if row][1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise UserError(
                f"data.path: {path.name!r} cannot be read: row {number} has {len(row)} values, the first has {len(names)}"
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)})


def _with_values(table: pa.Table) -> pa.Table:
    """The rows in which anything stands; spreadsheets write others as separators alone."""
    filled = [pc.not_equal(pc.utf8_trim_whitespace(column), "") for column in table.columns]
    return table.filter(reduce(pc.or_, filled))


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
    if encoding in ENCODINGS_OF_ONE_BYTE:
        read_as = ENCODINGS_OF_ONE_BYTE[encoding]
        notes.append(f"is no UTF-8 and was read as {read_as}; save it as UTF-8 if names look wrong")
    elif encoding.startswith(("utf-16", "utf-32")):
        notes.append(f"was read as {encoding[:6].upper()}")
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        notes.append(f"has its columns parted by {SEPARATORS[separator]}")
    return tuple(Finding(kind="list", count=1, text=f"{path.name!r} {note}") for note in notes)
