"""Writes space files as people would: a line for each value, comments wrapped, none over another."""

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.space.paths import FIELDS, flatten, nest
from search.space.sections import NAME_PATTERN
from trainable.atomic import write_beside
from trainable.errors import UserError

LINE = 124
_NAME = re.compile(NAME_PATTERN)
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*(:[\w./-]+)?", re.ASCII)
_RESERVED = {"null", "true", "false"}


def check_place(path: Path, *, where: str) -> None:
    """Raise UserError, which begins with ``where``, for a path that cannot be a space file's."""
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{where}: a space file ends in .yaml")
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{where}: the search is called as its file: letters, digits, '.', '_', '-', no other first")


def write_space(
    text: str, *, path: Path, where: str, force: bool = False, cure: str = "give another name or move it away"
) -> None:
    """Write a space file, over another one by ``force`` alone.

    Raises UserError, which begins with ``where``, where another one is, what to do being the ``cure``, and for a path that
    cannot be written.
    """
    if path.exists() and not (path.is_file() and (force or path.read_bytes() == text.encode())):
        raise UserError(f"{where}: is there already, with other contents; {cure}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"{where}: cannot be written ({error.strerror})") from None


def document_lines(document: Mapping[str, Any]) -> list[str]:
    """The sections of a space file's contents, and above each searched value what it does."""
    lines: list[str] = []
    for section, value in document.items():
        if section in ("base", "vary"):
            lines.append(f"{section}:")
            for key, inner in (nest(flatten(value)) if section == "base" else value).items():
                lines += [*_effect(key), *entry(key, inner, indent=2)]
        elif section == "try_first":
            lines += ["try_first:", *(f"  - {flow(recipe)}" for recipe in value)]
        else:
            lines += entry(section, value)
    return lines


def _effect(path: str) -> list[str]:
    """A comment that says what a value does; none for a section."""
    description = FIELDS[path].description if path in FIELDS else None
    return [] if description is None else ["  # " + textwrap.shorten(description, LINE, placeholder=" …")]


def entry(name: str, value: Any, *, indent: int = 0) -> list[str]:
    """The lines of one key: a single one if it fits into ``LINE`` characters, else one for each part."""
    head = f"{' ' * indent}{scalar(name)}:"
    line = f"{head} {flow(value)}"
    if len(line) <= LINE or not isinstance(value, Mapping | list):
        return [line]
    if isinstance(value, Mapping):
        return [head, *(part for key, inner in value.items() for part in entry(key, inner, indent=indent + 2))]
    return [head, *(f"{' ' * (indent + 2)}- {flow(item)}" for item in value)]


def flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar that strict YAML reads back as itself; JSON's text is YAML's too."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)


def wrapped(title: str, text: str) -> list[str]:
    """Comment lines of a paragraph: the first begins with its title, those of one without a title hang."""
    head = f"# {title:<8} "
    hanging = "#          " + ("  " if not title else "")
    return textwrap.wrap(text, LINE, initial_indent=head, subsequent_indent=hanging, break_on_hyphens=False)
