"""Libraries that only an extra installs: loaded when asked for, missed in one line."""

import importlib
from typing import Any

from trainable.errors import UserError

PROJECT = "finetune-search"


def library(name: str, *, extra: str, wanted: str) -> Any:
    """The module ``name``, which the project's ``extra`` installs. Raises UserError where what is ``wanted`` lacks it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise UserError(
            f"{wanted} needs {missing.partition('.')[0]}: pip install '{PROJECT}[{extra}]' ({error})"
        ) from error
