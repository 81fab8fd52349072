"""Reads a space file, strictly: YAML text to a SearchSpec, or one line for each mistake."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search.space.overrides import Override, apply_override, with_data
from search.space.spec import SearchSpec
from trainable.config.strict_yaml import parse, read_document
from trainable.config.validation import checked
from trainable.errors import SettingsError, UserError
from trainable.home import expand_home

URI_VARIABLE = "MLFLOW_TRACKING_URI"  # MLflow's own


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    name: str | None = None,
) -> SearchSpec:
    """The search a space file says, after ``path=value`` overrides.

    ``data``, ``trials``, ``minutes`` and ``name`` replace ``data.path``, ``search.trials``, ``search.budget.minutes`` (or
    ``hours``) and ``search.name``. Raises SettingsError, whose lines begin with the file's path. Where the
    file says none, MLflow's address is the environment's.
    """
    document = read_changed(path, overrides, data=data, trials=trials, minutes=minutes, name=name)
    return validated(_with_uri_of_environment(document), where=str(path))


def read_changed(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """A space file's contents with the changes of :func:`load`, not checked yet; ``base`` is by dotted path if it changed."""
    document = read_document(path)
    for text in overrides:
        document = apply_override(document, parse_override(text))
    if data is not None:
        document = with_data(document, data)
    document = _with_bounds(document, trials=trials, minutes=minutes)
    return document if name is None else apply_override(document, Override("search.name", name))


def validated(document: dict[str, Any], *, where: str) -> SearchSpec:
    """The search that contents of a space file say. Raises SettingsError, whose lines begin with ``where``."""
    return checked(SearchSpec, document, where=f"{where}: ")


def uri_note(spec: SearchSpec) -> str | None:
    """Say which address of MLflow's is meant where the environment names one; None where it does not."""
    uri = os.environ.get(URI_VARIABLE)
    if not uri:
        return None
    is_heeded = expand_home(uri) == spec.tracking.uri
    return f"tracking.uri: {'from' if is_heeded else 'is given; not from'} {URI_VARIABLE} of the environment"


def with_changes(
    spec: SearchSpec,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
) -> SearchSpec:
    """A search that goes on, with other values; which of them make it another search is for its ledger to say.

    ``data`` is where its images lie now. Raises SettingsError, and UserError for what says which search it is.
    """
    document = spec.model_dump()
    for text in overrides:
        override = parse_override(text)
        if override.path in ("search.name", "search.folder", "search.storage"):
            raise UserError(f"--set {override.path}: a search that has begun stays where it is")
        document = apply_override(document, override)
    if data is not None:
        document = with_data(document, data)
    return validated(_with_bounds(document, trials=trials, minutes=minutes), where=spec.search.name)


def with_promotion(spec: SearchSpec, overrides: Iterable[str]) -> SearchSpec:
    """The search with other values of its ``promote`` section, PATH=VALUE. Raises UserError for any other path."""
    document = spec.model_dump()
    for text in overrides:
        override = parse_override(text)
        if not override.path.startswith("promote."):
            raise UserError(f"--set {override.path}: a search that has run stays as it is; only promote.… can be set")
        document = apply_override(document, override)
    return validated(document, where="--set")


def parse_override(text: str) -> Override:
    """The ``path=value`` of a ``--set``, its value read as YAML. Raises SettingsError."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SettingsError([f"--set {text}: must be path=value, such as optimizer.lr=1e-3"])
    return Override(path.strip(), parse(value, where=f"--set {path.strip()}"))


def _with_bounds(document: dict[str, Any], *, trials: int | None, minutes: float | None) -> dict[str, Any]:
    """The contents with another number of trials, another time by the clock; hours that they have give way to minutes."""
    if trials is not None:
        document = apply_override(document, Override("search.trials", trials))
    if minutes is not None:
        document = apply_override(document, Override("search.budget.minutes", minutes))
        document["search"]["budget"].pop("hours", None)
    return document


def _with_uri_of_environment(document: dict[str, Any]) -> dict[str, Any]:
    uri, tracking = os.environ.get(URI_VARIABLE), document.get("tracking") or {}
    if not uri or not isinstance(tracking, dict) or "uri" in tracking:
        return document
    return document | {"tracking": tracking | {"uri": uri}}
