"""The dotted paths of a trial's configuration: which there are, and what each takes."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from search.space.values import Value
from trainable.config.renamed import new_name
from trainable.config.trial import TrialConfig
from trainable.config.validation import explain, leaf_fields

FIELDS = leaf_fields(TrialConfig)
SECTIONS = frozenset(path.rpartition(".")[0] for path in FIELDS) - {""}
SET_BY_SEARCH = {
    "seed": "search.seed",
    "train.epochs": "scheduler.max_epochs",
    "train.metric": "search.metric",
}
FIXED_IN_SEARCH = ("data.source", "data.target", "data.oracle")  # a search is of one task


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted path, from nested sections, from dotted paths, or from a mixture of both.

    Raises ValueError, one line each, for a path that is given twice. What is no path of a trial is kept as it is.
    """
    flat: dict[str, Any] = {}
    twice = _flatten_into(flat, nested, prefix="")
    if twice:
        raise ValueError("\n".join(f"{path} is given twice" for path in twice))
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections from values by dotted path."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return nested


def problem_of_path(path: str) -> str | None:
    """Why a path cannot be given in a space file, as the end of a line; None for one that can."""
    if path in SET_BY_SEARCH:
        return f"is set by the search; give {SET_BY_SEARCH[path]}"
    if path in FIELDS:
        return None
    if new_name(path) != path:
        return f"is called {new_name(path)} now"
    if path in SECTIONS:
        example = next(field for field in FIELDS if field.startswith(f"{path}."))
        return f"is a section; give one of its values, such as {example}"
    return f"unknown path{nearest_path(path)}"


def nearest_path(path: str) -> str:
    """``; did you mean 'optimizer.lr'?``: the nearest name in its section, else the nearest path, else the nearest name."""
    section, _, name = path.rpartition(".")
    settable = [field for field in FIELDS if field not in SET_BY_SEARCH]
    siblings = [field for field in settable if field.rpartition(".")[0] == section]
    near = (
        _by_last_name(name, siblings)
        or get_close_matches(path, [*settable, *sorted(SECTIONS)], n=1)
        or _by_last_name(name, settable)
    )
    return f"; did you mean {near[0]!r}?" if near else ""


def config_problems(flat: Mapping[str, Value]) -> list[str]:
    """What TrialConfig says against values by dotted path, one line each."""
    try:
        TrialConfig.model_validate(nest(flat), strict=True)
    except ValidationError as error:
        return explain(error, model=TrialConfig)
    return []


def defaults() -> dict[str, Value]:
    """Every path's default."""
    return {path: field.get_default(call_default_factory=True) for path, field in FIELDS.items()}


def _by_last_name(name: str, paths: list[str]) -> list[str]:
    by_name = {path.rpartition(".")[2]: path for path in reversed(paths)}
    return [by_name[match] for match in get_close_matches(name, by_name, n=1)]


def _flatten_into(flat: dict[str, Any], nested: Mapping[str, Any], *, prefix: str) -> list[str]:
    twice = []
    for key, value in nested.items():
        path = f"{prefix}{key}"
        if path in SECTIONS and isinstance(value, Mapping):
            twice += _flatten_into(flat, value, prefix=f"{path}.")
        elif path in flat:
            twice.append(path)
        else:
            flat[path] = value
    return twice
