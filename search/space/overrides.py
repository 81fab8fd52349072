"""What ``--set path=value`` does to a space file's contents, before they are checked."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from search.space.paths import FIELDS, SECTIONS, SET_BY_SEARCH, flatten, nearest_path
from search.space.spec import SearchSpec
from trainable.config.renamed import new_name
from trainable.config.validation import leaf_fields
from trainable.errors import UserError

SPEC_PATHS = leaf_fields(SearchSpec).keys() - {"base", "vary"}
Document = dict[str, Any]


@dataclass(frozen=True)
class Override:
    """One path, of the search or of a trial, with the value it is to have."""

    path: str
    value: Any


def apply_override(document: Document, override: Override) -> Document:
    """The contents with one value replaced.

    A path of a trial is fixed in base and no longer varied; a ``vary.`` path is varied and no longer fixed; every other
    is a field of the search. Raises UserError for a path that is neither, with the nearest good one.
    """
    document = deepcopy(document)
    path = override.path.removeprefix("base.")
    if path.startswith("vary.") and path.removeprefix("vary.") in FIELDS:
        return _varied(document, path.removeprefix("vary."), override.value)
    if path in SET_BY_SEARCH:
        raise UserError(f"--set {path}: is set by the search; give {SET_BY_SEARCH[path]}")
    if path in FIELDS:
        return _fixed(document, path, override.value)
    if path in SPEC_PATHS:
        return _replaced(document, path, override.value)
    if new_name(path) != path:
        raise UserError(f"--set {override.path}: is called {new_name(path)} now")
    raise UserError(f"--set {override.path}: unknown path{_nearest(path)}")


def with_data(document: Document, path: str) -> Document:
    """The contents with other images: a built-in data set gives way to what is found at ``path``."""
    document = apply_override(document, Override("data.path", path))
    if document["base"].get("data.format") == "elpv":
        document["base"]["data.format"] = "auto"
        document["base"].pop("data.elpv_rule", None)
    return document


def _varied(document: Document, path: str, value: Any) -> Document:
    base = _base(document)
    base.pop(path, None)
    document["vary"] = {**_mapping(document, "vary"), path: value}
    return document


def _fixed(document: Document, path: str, value: Any) -> Document:
    """The path in base; gone from vary, from recipes and, where they hold, from conditions.

    What is searched only under a condition that fails now is not searched any more.
    """
    _base(document)[path] = value
    vary = _mapping(document, "vary")
    vary.pop(path, None)
    gone = {path}
    for inactive in _never_active(vary, path=path, value=value):
        gone.add(inactive)
        del vary[inactive]
    document["vary"] = {other: _without_condition(raw, path) for other, raw in vary.items()}
    recipes = document.get("try_first")
    if isinstance(recipes, list):
        document["try_first"] = _distinct(_without(recipe, gone) for recipe in recipes)
    return document


def _never_active(vary: Mapping[str, Any], *, path: str, value: Any) -> list[str]:
    """The paths that a condition on the fixed value rules out, and those that depend on them."""
    never = [other for other, raw in vary.items() if path in _when(raw) and value not in _as_list(_when(raw)[path])]
    for owner in never:
        never += [other for other, raw in vary.items() if owner in _when(raw) and other not in never]
    return never


def _replaced(document: Document, path: str, value: Any) -> Document:
    *sections, name = path.split(".")
    inner = document
    for section in sections:
        inner[section] = dict(inner[section]) if isinstance(inner.get(section), Mapping) else {}
        inner = inner[section]
    inner[name] = value
    return document


def _base(document: Document) -> dict[str, Any]:
    """The document's base by dotted path, made so in place."""
    try:
        document["base"] = flatten(_mapping(document, "base"))
    except ValueError as error:
        raise UserError(f"base: {str(error).splitlines()[0]}") from None
    base: dict[str, Any] = document["base"]
    return base


def _mapping(document: Document, key: str) -> dict[str, Any]:
    value = document.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _when(raw: Any) -> Mapping[str, Any]:
    when = raw.get("when") if isinstance(raw, Mapping) else None
    return when if isinstance(when, Mapping) else {}


def _without_condition(raw: Any, path: str) -> Any:
    if path not in _when(raw):
        return raw
    when = {owner: values for owner, values in raw["when"].items() if owner != path}
    rest = {key: entry for key, entry in raw.items() if key != "when"}
    return {**rest, "when": when} if when else rest


def _without(recipe: Any, paths: set[str]) -> Any:
    return {path: value for path, value in recipe.items() if path not in paths} if isinstance(recipe, dict) else recipe


def _distinct(recipes: Iterable[Any]) -> list[Any]:
    """The recipes that still say something, each once."""
    kept: list[Any] = []
    for recipe in recipes:
        if recipe and recipe not in kept:
            kept.append(recipe)
    return kept


def _as_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _nearest(path: str) -> str:
    if path in SECTIONS:
        return f"; give one of its values, such as {next(field for field in FIELDS if field.startswith(f'{path}.'))}"
    varied = path.startswith("vary.")
    if not varied and (near := get_close_matches(path, SPEC_PATHS, n=1)):
        return f"; did you mean {near[0]!r}?"
    hint = nearest_path(path.removeprefix("vary."))
    return hint.replace("mean '", "mean 'vary.") if varied else hint
