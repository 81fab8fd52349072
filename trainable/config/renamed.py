"""Names that settings had before they were renamed: what was written then is still read."""

from collections.abc import Mapping
from typing import Any

# One word for one thing: what draws classes is no sampler of a search, the course of the rate no schedule of anything else.
RENAMED = {"schedule": "lr_schedule", "data.sampler": "data.class_sampling"}


def new_name(path: str) -> str:
    """Give the name that a dotted path has today."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return path


def first_name(path: str) -> str:
    """Give the name that a dotted path had at first."""
    for old, new in RENAMED.items():
        if path == new or path.startswith(f"{new}."):
            return old + path.removeprefix(new)
    return path


def with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a stored configuration of a trial, in sections, its names of today."""
    sections = {new_name(name): section for name, section in config.items()}
    return {
        name: {new_name(f"{name}.{key}").removeprefix(f"{name}."): value for key, value in section.items()}
        if isinstance(section, Mapping)
        else section
        for name, section in sections.items()
    }


def space_with_new_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Give a stored space file, whose ``base`` is by dotted path, its names of today."""
    vary = {new_name(path): _condition_with_new_names(entry) for path, entry in document.get("vary", {}).items()}
    return {
        **document,
        "base": _by_new_names(document.get("base", {})),
        "vary": vary,
        "try_first": [_by_new_names(recipe) for recipe in document.get("try_first", [])],
    }


def identity_with_new_names(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Give a stored identity of a search, whose paths begin with ``base.`` or ``vary.``, its names of today."""
    new_identity: dict[str, Any] = {}
    for path, value in identity.items():
        part, dot, rest = path.partition(".")
        if part == "vary":
            value = _condition_with_new_names(value)
        new_identity[f"{part}.{new_name(rest)}" if dot and part in ("base", "vary") else path] = value
    if "try_first" in new_identity:
        new_identity["try_first"] = [
            dict(sorted(_by_new_names(recipe).items())) for recipe in new_identity["try_first"]
        ]
    return new_identity


def _by_new_names(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {new_name(path): value for path, value in flat.items()}


def _condition_with_new_names(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("when"), Mapping):
        return entry
    return {**entry, "when": _by_new_names(entry["when"])}
