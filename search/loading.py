"""Reads a space file, strictly: YAML text to a SearchSpec, or one line for each mistake."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search.overrides import Override, apply_override, with_data
from search.spec import SearchSpec
from search.validation import explain, shown
from trainable.errors import UserError


class SpaceFileError(UserError):
    """The mistakes of a space file: the first is the message, ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    trials: int | None = None,
    name: str | None = None,
) -> SearchSpec:
    """The search a space file says, after ``path=value`` overrides.

    ``data``, ``trials`` and ``name`` replace ``data.path``, ``search.trials`` and ``search.name``. Raises
    SpaceFileError, whose lines begin with the file's path.
    """
    document = read_document(path)
    for text in overrides:
        document = apply_override(document, parse_override(text))
    if data is not None:
        document = with_data(document, data)
    for spec_path, value in (("search.trials", trials), ("search.name", name)):
        if value is not None:
            document = apply_override(document, Override(spec_path, value))
    try:
        return SearchSpec.model_validate(document)
    except ValidationError as error:
        raise SpaceFileError([f"{path}: {line}" for line in explain(error, model=SearchSpec)]) from None


def read_document(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises SpaceFileError for a missing file, bad syntax or a key given twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceFileError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceFileError([f"{path}: cannot be read ({_one_line(str(error))})"]) from None
    document = _parse(text, where=str(path))
    if not isinstance(document, dict):
        raise SpaceFileError([f"{path}: got {shown(document)}, must be sections such as search, base and vary"])
    return document


def parse_override(text: str) -> Override:
    """The ``path=value`` of a ``--set``, its value read as YAML. Raises SpaceFileError."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SpaceFileError([f"--set {text}: must be path=value, such as optimizer.lr=1e-3"])
    return Override(path.strip(), _parse(value, where=f"--set {path.strip()}"))


def _parse(text: str, *, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpaceFileError([f"{where}{line}: {_one_line(error.problem or 'is no YAML')}"]) from None
    except yaml.YAMLError as error:
        raise SpaceFileError([f"{where}: {_one_line(str(error))}"]) from None


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
                    None, None, f"the key {shown(key)} must be text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


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
