"""Imports a user's own functions, where he has allowed that: code that a settings file names is not data."""

import importlib
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from trainable.errors import UserError

ALLOWED = "SEARCH_ALLOW_CODE"  # in the environment, so that workers and commands that a command starts inherit it
FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# Functions of these take pixels for other things, a pickle or a program among them, and none is an operation on an image.
NOT_OWN = frozenset({*sys.stdlib_module_names, "torch", "numpy", "PIL"})


def allow_code(wanted: bool = True) -> bool:
    """Let this process, and those it starts, import what settings name; what a command's ``--allow-code`` calls."""
    if wanted:
        os.environ[ALLOWED] = "1"
    return wanted


def permission() -> dict[str, str]:
    """The environment of a process that may do what this one may."""
    return {ALLOWED: "1"} if os.environ.get(ALLOWED) == "1" else {}


def find_code(path: str) -> None:
    """Look up an import path ``package.module:function`` without running its code.

    Raises UserError where code is not allowed, where the path is none of a user's own, and where there is no such package.
    """
    if not permission():
        raise UserError(
            f"augment.custom: {path!r} is code, which is imported with --allow-code alone (or {ALLOWED}=1 in the environment); "
            "allow it for files that you would run as a program"
        )
    package = path.partition(":")[0].partition(".")[0]
    if FORM.fullmatch(path) is None or package in NOT_OWN or package == "__main__":
        raise UserError(f"augment.custom: {path!r} is no function of your own; must be package.module:function")
    if find_spec(package) is None:
        raise _not_importable(path, f"No module named {package!r}")


def import_code(path: str) -> Callable[..., Any]:
    """The function of an import path; raises UserError as :func:`find_code` does, and where there is none."""
    find_code(path)
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _not_importable(path, str(error)) from error
    if not callable(function):
        raise UserError(f"augment.custom: {path!r} is no function")
    called: Callable[..., Any] = function
    return called


def _not_importable(path: str, reason: str) -> UserError:
    return UserError(
        f"augment.custom: cannot import {path!r} ({reason}); must be package.module:function, importable from the folder the "
        "command is run in"
    )
