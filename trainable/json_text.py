"""Writes JSON that every reader takes: what commands print, what files hold."""

import json
import math
from collections.abc import Callable
from typing import Any

_NAMES = {f"number:{value}": value for value in (math.inf, -math.inf, math.nan)}


def to_json(document: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """One JSON document; numbers that are not finite, which JSON does not have, are null."""
    return json.dumps(finite(document), indent=indent, sort_keys=sort_keys, allow_nan=False)


def finite(document: Any) -> Any:
    """The plain data with None for numbers that are not finite, for a library that writes JSON itself."""
    return _mapped(document, change=lambda value: value if _is_finite(value) else None)


def restorable(document: Any) -> Any:
    """The plain data with a text for each number that is not finite, which :func:`restored` makes the number again."""
    return _mapped(document, change=lambda value: value if _is_finite(value) else f"number:{value}")


def restored(document: Any) -> Any:
    """What :func:`restorable` was given."""
    return _mapped(document, change=lambda value: _NAMES.get(value, value) if isinstance(value, str) else value)


def _mapped(value: Any, *, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(entry, change=change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(entry, change=change) for entry in value]
    return change(value)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
