"""What a searched value may be."""

from typing import Any

Value = None | bool | int | float | str | list[Any] | dict[str, Any]
