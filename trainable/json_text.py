"""Writes JSON that every reader takes: what commands print, what files for others hold."""

import json
import math
from typing import Any


def to_json(document: Any, *, indent: int | None = None) -> str:
    """One JSON document; numbers that are not finite, which JSON does not have, are null."""
    return json.dumps(_finite(document), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
