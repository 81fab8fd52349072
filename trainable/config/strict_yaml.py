"""Reads YAML strictly: one meaning for every scalar, no key twice."""

import re
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from trainable.config.validation import as_text
from trainable.errors import SettingsError, nearest
from trainable.masking import secrets_below

MOST_CHARACTERS, MOST_VALUES, MOST_LEVELS, MOST_DIGITS = 1_000_000, 50_000, 40, 30
TOO_LARGE = (
    f"more than {MOST_VALUES} values, aliases (`*name`) counted, or {MOST_LEVELS} levels; no settings file needs them"
)
NO_SECRETS = (
    "an address with a password or a token, which would be kept with the results; PostgreSQL takes it from PGPASSFILE or "
    "PGSERVICE, an MLflow server from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a store of images from its own "
    "files or the environment"
)


def read_document(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises SettingsError for a missing file, bad syntax or a key given twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = Path(path).parent.glob("*.y*ml")
        raise SettingsError([f"{path}: no such file{nearest(str(path), map(str, beside))}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: cannot be read ({_one_line(str(error))})"]) from None
    document = parse(text, where=str(path))
    if not isinstance(document, dict):
        raise SettingsError([f"{path}: got {as_text(document)}, must be sections with settings"])
    return document


def parse(text: str, *, where: str) -> Any:
    """What a YAML text holds. Raises SettingsError, which begins with ``where``, for bad syntax and for
    addresses with a password.
    """
    value = _loaded(text, where=where)
    secrets = list(secrets_below(value))
    if secrets:
        raise SettingsError([f"{where}: {path + ': ' if path else ''}{NO_SECRETS}" for path in secrets])
    return value


def _loaded(text: str, *, where: str) -> Any:
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(
            [f"{where}: has {len(text)} characters, more than the {MOST_CHARACTERS} of any settings file"]
        )
    try:
        value = yaml.load(text, Loader=_StrictLoader)
        _check_size(value)
        return value
    except (RecursionError, _TooLargeError):
        raise SettingsError([f"{where}: {TOO_LARGE}"]) from None
    except (ValueError, KeyError, TypeError, AttributeError):  # of values that PyYAML takes by an explicit tag
        raise SettingsError([f"{where}: has a value that is not what its tag (`!!`) says"]) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError([f"{where}{line}: {_problem(error.problem or 'is no YAML')}"]) from None
    except yaml.YAMLError as error:
        raise SettingsError([f"{where}: {_one_line(str(error))}"]) from None


class _TooLargeError(Exception):
    """A document of more values, or deeper, than any settings file is."""


def _problem(text: str) -> str:
    """What PyYAML says, in the words of whoever wrote the file where they would not tell him what to do."""
    return "has a tab where YAML takes spaces" if r"'\t'" in text else _one_line(text)


def _check_size(document: Any) -> None:
    """Raise _TooLargeError: a value counts as often as aliases (`*name`) put it in, and a circle of them has no end."""
    number, level = 0, [document]
    for _ in range(MOST_LEVELS):
        number += len(level)
        inner = (
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        )
        level = list(islice(chain.from_iterable(inner), MOST_VALUES))
        if number + len(level) > MOST_VALUES:
            raise _TooLargeError
    if level:
        raise _TooLargeError


class _StrictLoader(yaml.SafeLoader):
    """YAML with the scalars of its version 1.2 and no key twice.

    PyYAML reads version 1.1, where ``1e-3`` is text, ``off`` is false, ``010`` is eight and ``1:30`` is ninety.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; a key that is given twice is an error at its line."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {as_text(key)} must be text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MOST_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} digits, more than {MOST_DIGITS}", node.start_mark
        )
    return int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan").lower())


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _one_line(text: str) -> str:
    return " ".join(text.split())
