"""What a settings field may hold, said in words: pydantic's errors as lines a person can act on."""

import json
import types
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainable.errors import SettingsError, nearest

LONGEST_TEXT = 80  # characters of a value in a message
Settings = TypeVar("Settings", bound=BaseModel)


def checked(model: type[Settings], values: object, *, where: str = "") -> Settings:
    """``values`` as these settings; raises SettingsError with a line for each mistake, which begins with ``where``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError([where + line for line in explain(error, model=model)]) from None


def explain(error: ValidationError, *, model: type[BaseModel]) -> list[str]:
    """One line for each mistaken path: the path, what was given, what would be right, the nearest good name."""
    lines: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        path, section, field = _locate(detail["loc"], model)
        lines.setdefault(path, _explain_one(detail, path=path, section=section, field=field))
    return [line for of_path in lines.values() for line in of_path]


def leaf_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Every value of a settings model by dotted path; sections are followed, not listed."""
    return dict(_walk(model, prefix=""))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model a field holds, optional or not; None for a plain value."""
    for option in (field.annotation, *get_args(field.annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def allowed(field: FieldInfo | None) -> str:
    """What a field takes, as the end of "must be …"."""
    if field is None:
        return "left out"
    if field.examples:
        return f"text such as {as_text(field.examples[0])}"
    return _allowed_type(field.annotation, tuple(field.metadata))


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'lr'?`` for the nearest known name, else the list of the known where it is short."""
    names = list(names)
    near = nearest(name, names)
    return near or (f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else "")


def as_text(value: object) -> str:
    """A value as one short line, close to how YAML writes it."""
    value = value[:LONGEST_TEXT] if isinstance(value, str) else value  # what is cut is not written out first
    text = repr(value) if isinstance(value, str | float) else _as_json(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _walk(model: type[BaseModel], *, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield f"{prefix}{name}", field
        else:
            yield from _walk(section, prefix=f"{prefix}{name}.")


def _locate(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, type[BaseModel], FieldInfo | None]:
    """The dotted path of an error, the section it lies in and the field, where there is one.

    What pydantic appends below a plain value, a union's branch or a list's index, is left out.
    """
    names: list[str] = []
    section, field = model, None
    for part in loc:
        inner = section if field is None else section_of(field)
        if inner is None:
            break
        section, field = inner, inner.model_fields.get(str(part))
        names.append(str(part))
    return ".".join(names), section, field


def _explain_one(
    detail: Mapping[str, Any], *, path: str, section: type[BaseModel], field: FieldInfo | None
) -> list[str]:
    given, kind = as_text(detail["input"]), detail["type"]
    if kind == "value_error":
        leaf = field is not None and section_of(field) is None
        joint = ": " if leaf else "." if path else ""
        return [f"{path}{joint}{line}" for line in str(detail["ctx"]["error"]).splitlines()]
    if kind == "extra_forbidden":
        return [f"{path}: unknown key{did_you_mean(path.rpartition('.')[2], section.model_fields)}"]
    inner = section if field is None else section_of(field)
    wanted = f"a section with {', '.join(inner.model_fields)}" if inner is not None else allowed(field)
    if kind == "missing":
        return [f"{path}: missing, must be {wanted}"]
    return [f"{path or 'file'}: got {given}, must be {wanted}{_nearest_option(detail['input'], field)}"]


def _nearest_option(value: object, field: FieldInfo | None) -> str:
    if field is None:
        return ""
    options = [option for option in _literals(field.annotation) if isinstance(option, str)]
    near = get_close_matches(value, options, n=1) if isinstance(value, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _literals(annotation: Any) -> list[object]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [literal for argument in get_args(annotation) for literal in _literals(argument)]


def _allowed_type(annotation: Any, metadata: tuple[Any, ...]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed_type(arguments[0], tuple(arguments[1:]) + metadata)
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed_type(argument, metadata) for argument in arguments)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(str(argument) for argument in arguments)
    if origin in (list, tuple):
        return f"a list of {_allowed_type(arguments[0], ()).removeprefix('one of ')}"
    if origin is dict:
        if Any in arguments:
            return "a mapping of dotted paths"
        key, value = (_allowed_type(argument, ()) for argument in arguments)
        return f"a mapping from {key} to {value}"
    if annotation in (int, float):
        return ("a whole number" if annotation is int else "a number") + _bounds(metadata)
    return _NAMES.get(annotation) or _NAMES.get(origin) or str(annotation)


_NAMES: dict[Any, str] = {str: "text", bool: "true or false", type(None): "null"}
_BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))


def _bounds(metadata: tuple[Any, ...]) -> str:
    """`` above 0, at most 10``."""
    bounds = []
    for entry in metadata:
        for inner in getattr(entry, "metadata", None) or [entry]:
            bounds += [
                f"{word} {getattr(inner, key)}" for key, word in _BOUNDS if getattr(inner, key, None) is not None
            ]
    return f" {', '.join(bounds)}" if bounds else ""
