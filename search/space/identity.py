"""What makes a search the one it is, and in what two differ."""

from collections.abc import Mapping
from typing import Any

from search.space.paths import defaults
from trainable.config.validation import as_text


def identity_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each path that is not the same in two identities: ``path: old -> new``.

    A value of a trial that one of them was written without, since there was no such value then, is its default there.
    """
    since = {f"base.{path}": canonical(value) for path, value in defaults().items()}
    paths = [
        path
        for path in sorted({*before, *after})
        if before.get(path, since.get(path, ...)) != after.get(path, since.get(path, ...))
    ]
    return [f"{path}: {_shown_or_absent(before, path)} -> {_shown_or_absent(after, path)}" for path in paths]


def _shown_or_absent(identity: Mapping[str, Any], path: str) -> str:
    return as_text(identity[path]) if path in identity else "absent"


def canonical(value: Any) -> Any:
    """Plain data with sorted keys, where 1.0 is written as 1: equal data have equal JSON."""
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
