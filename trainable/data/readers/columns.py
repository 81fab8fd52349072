"""Reads labels, splits, groups, domains from the columns of a table."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from trainable.config.trial import DataConfig
from trainable.data.readers.findings import Finding, counted
from trainable.data.readers.sample import SPLIT_NAMES, split_of
from trainable.errors import UserError, nearest

NOTHING = ("nan", "na", "n/a", "<na>", "none", "null", "nil", "?")  # what programs write where there is no value


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a table says about its images, row by row."""

    labels: list[str | None]
    splits: list[str | None]
    groups: list[str | None]
    domains: list[str | None]


def read_columns(table: pa.Table, *, config: DataConfig) -> Columns:
    """The columns that ``config`` names; a UserError names a missing one, null labels or an unknown split.

    Images of a domain to adapt to may lack a label, and a data set of them alone the column.
    """
    nothing: list[str | None] = [None] * table.num_rows
    return Columns(
        labels=_labels(table, config=config) if config.label_column in table.column_names else nothing,
        splits=_splits(table, config=config) if config.split_column in table.column_names else nothing,
        groups=text_column(table, config.group_column, field="group_column") if config.group_column else nothing,
        domains=text_column(table, config.domain_column, field="domain_column") if config.domain_column else nothing,
    )


def wanted_columns(present: Iterable[str], *, config: DataConfig) -> list[str]:
    """Every column beside the images' that ``config`` names; a UserError where one is missing from ``present``."""
    present = list(present)
    is_target = config.target is not None and config.path == config.target
    fields = ["group_column", "domain_column"]
    if config.label_column in present or not is_target:
        fields.append("label_column")
    if config.split_column in present or config.split_column != type(config).model_fields["split_column"].default:
        fields.append("split_column")
    named = {field: getattr(config, field) for field in fields}
    for field, name in named.items():
        if name is not None:
            require_column(present, name, field=field)
    return list(dict.fromkeys(name for name in named.values() if name is not None))


def require_column(present: Iterable[str], name: str, *, field: str) -> None:
    """A UserError with the nearest name where column ``name`` is not ``present``."""
    present = list(present)
    if name not in present:
        hint = nearest(name, present) or f", there are {', '.join(present)}"
        raise UserError(f"data.{field}: there is no column {name!r}{hint}")


def text_column(table: pa.Table, name: str, *, field: str) -> list[str | None]:
    """The column as text, None where it is null, empty, blank or not a number where numbers are."""
    values = table[name]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_nested(values.type):
        raise UserError(f"data.{field}: column {name!r} holds {values.type}, expected text or numbers")
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    return [value if value and not value.isspace() else None for value in values.cast(pa.string()).to_pylist()]


def notes_on_columns(table: pa.Table, *, config: DataConfig) -> Iterator[Finding]:
    """What is said of columns that may mean something else: words for nothing as labels or groups, splits not asked for."""
    for field, done in (("label_column", "a class"), ("group_column", "one group")):
        name = getattr(config, field)
        if name is None or name not in table.column_names:
            continue
        words = Counter(value for value in text_column(table, name, field=field) if (value or "").casefold() in NOTHING)
        for word, count in words.items():
            text = f"data.{field}: {word!r} stands in {counted(count, 'row')} and was taken for {done}"
            yield Finding(
                kind="list", count=count, text=text, cure="leave the cells empty, or the rows out, if it means nothing"
            )
    if config.split_column in table.column_names:
        return
    for name in table.column_names:
        if _names_splits(table[name]):
            text = f"column {name!r} names splits and was not used"
            yield Finding(kind="list", count=1, text=text, cure=f"`data.split_column: {name}` takes them")


def _names_splits(values: pa.ChunkedArray) -> bool:
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not is_text or not len(values) or SPLIT_NAMES.get(str(values[0]).strip().lower()) is None:
        return False
    splits = {
        SPLIT_NAMES.get(str(value).strip().lower()) for value in values.unique().to_pylist()[: len(SPLIT_NAMES) + 1]
    }
    return "train" in splits and None not in splits and len(splits) > 1


def _labels(table: pa.Table, *, config: DataConfig) -> list[str | None]:
    labels = text_column(table, config.label_column, field="label_column")
    names = _class_names(table.schema, config.label_column)
    if names is not None:
        by_number = {str(number): name for number, name in enumerate(names)}
        labels = [by_number.get(label or "") for label in labels]
    if config.target is None and None in labels:
        first = labels.index(None)
        some = f"{labels.count(None)} of {len(labels)} rows have no label"
        raise UserError(f"data.label_column: {some}, the first is row {first}; leave those rows out")
    return labels


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Names of integer labels as Hugging Face's `datasets` writes them into the schema."""
    if not pa.types.is_integer(schema.field(column).type):
        return None
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names: list[str] | None = described.get("info", {}).get("features", {}).get(column, {}).get("names")
    return names


def _splits(table: pa.Table, *, config: DataConfig) -> list[str | None]:
    values = text_column(table, config.split_column, field="split_column")
    meaning = {value: split_of(value or "", field="data.split_column") for value in dict.fromkeys(values)}
    return [meaning[value] for value in values]
