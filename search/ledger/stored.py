"""What a search was begun as and what it noted, opened from its folder."""

import json
import re
from pathlib import Path
from typing import Any

from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.sqlite_address import sqlite_address, sqlite_file
from search.ledger.trials import Trial
from search.space.sections import NAME_PATTERN
from search.space.spec import SearchSpec, resume_command
from trainable.config.renamed import space_with_new_names
from trainable.config.validation import checked, did_you_mean
from trainable.errors import UserError

SPEC_FILE = "search.json"
# Values of the base that are files or folders, counted from the working directory where they are relative.
FILES = (
    "data.path",
    "data.images",
    "data.rehearsal",
    "data.keep_splits",
    "data.cache",
    "model.weights",
    "finetune.text_weights",
    "distill.unlabelled",
)


def stored_spec(folder: Path) -> SearchSpec:
    """What a search in ``folder`` was begun as, where it lies now.

    It may have been moved or renamed, or be looked at from another working directory: ``search.folder`` and ``search.name`` are
    those of ``folder``, whatever the file says. Raises NoSearchError where there is none, naming the nearest one.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        names = [other.parent.name for other in folder.parent.glob(f"*/{SPEC_FILE}")]
        raise NoSearchError(f"{folder}: no search of this name{did_you_mean(folder.name, names)}")
    return _where_it_lies(_written_spec(path), folder=folder)


def study_name(spec: SearchSpec, *, folder: Path) -> str:
    """What the search in ``folder`` is called in its ledger: as it was when it was begun, whatever its folder is called now."""
    path = folder / SPEC_FILE
    return _written_spec(path).search.name if path.is_file() else spec.search.name


def as_written(spec: SearchSpec, *, folder: Path) -> SearchSpec:
    """The search as the file in its ``folder`` is to keep it.

    Its name stays, and names and places stay as they were written while they mean the same as those of ``spec``, so that they
    hold for the working directory in which the search was begun.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        return spec
    written = _written_spec(path)
    here = _where_it_lies(written, folder=folder)
    is_begun_here = _begun_in(folder, search_folder=written.search.folder) is not None
    search = {"name": written.search.name} | ({"folder": written.search.folder} if is_begun_here else {})
    tracking = {
        name: getattr(written.tracking, name)
        for name in ("uri", "experiment")
        if getattr(here.tracking, name) == getattr(spec.tracking, name) and (is_begun_here or name == "experiment")
    }
    return spec.model_copy(
        update={
            "search": spec.search.model_copy(update=search),
            "tracking": spec.tracking.model_copy(update=tracking),
            "base": written.base if here.base == spec.base else spec.base,
        }
    )


def check_called_as_its_folder(spec: SearchSpec, *, folder: Path) -> None:
    """Raise UserError for a folder that was renamed so that the search cannot go on in it.

    That is one whose name no search can have, and one of two whose ledger is in a database, where a copy would have the same.
    """
    written = _written_spec(folder / SPEC_FILE).search.name
    if folder.name != spec.search.name or (spec.search.storage is not None and folder.name != written):
        raise UserError(f"{folder}: holds the search {written!r}; call the folder so to go on with it")


def open_ledger(folder: Path) -> tuple[SearchSpec, Ledger]:
    """A search's specification and its ledger, for reading."""
    spec = stored_spec(folder)
    return spec, open_ledger_of(spec, folder=folder)


def open_ledger_of(spec: SearchSpec, *, folder: Path) -> Ledger:
    """Open the ledger of the search ``spec``; raises UserError where there is none."""
    name = study_name(spec, folder=folder)
    return ledgers.open_existing(folder, name=name, storage=spec.search.storage, space=spec.space)


def is_finished(ledger: Ledger, *, trials: list[Trial]) -> bool:
    """Whether everything of a search is decided and measured; trials that the time did not allow stay open, and say so."""
    return ledger.notes.finished and all(trial.state != "RUNNING" or trial.reason is not None for trial in trials)


def check_finished(spec: SearchSpec, ledger: Ledger) -> None:
    """Raise UserError for a search that is not finished."""
    if not is_finished(ledger, trials=ledger.trials()):
        raise UserError(f"{spec.search.name}: is not finished; `{resume_command(spec)}` goes on with it")


def _written_spec(path: Path) -> SearchSpec:
    try:
        document = json.loads(path.read_text())
    except ValueError:  # no JSON, or no text
        document = None
    if not isinstance(document, dict):
        raise UserError(f"{path}: is not the JSON that a search keeps there")
    return checked(SearchSpec, space_with_new_names(document), where=f"{path}: ")


def _where_it_lies(written: SearchSpec, *, folder: Path) -> SearchSpec:
    """The search in ``folder``. Relative files of it count from where the search was begun, if that can be told."""
    search, tracking, base = {"folder": str(folder.parent)}, {}, written.base
    if folder.name != written.search.name and re.fullmatch(NAME_PATTERN, folder.name):
        search["name"] = folder.name
        tracking["experiment"] = written.tracking.experiment or written.search.name
    root = _begun_in(folder, search_folder=written.search.folder)
    if root is not None and root != Path.cwd().resolve():
        tracking["uri"] = _counted_from(written.tracking.uri, root=root)
        base = {path: _file_counted_from(value, path=path, root=root) for path, value in base.items()}
    return written.model_copy(
        update={
            "search": written.search.model_copy(update=search),
            "tracking": written.tracking.model_copy(update=tracking),
            "base": base,
        }
    )


def _begun_in(folder: Path, *, search_folder: str) -> Path | None:
    """The directory from which a relative ``search_folder`` leads to the search in ``folder``; None where none does."""
    actual_parts, written_parts = folder.parent.absolute().parts, Path(search_folder).parts
    if Path(search_folder).is_absolute() or actual_parts[len(actual_parts) - len(written_parts) :] != written_parts:
        return None
    return Path(*actual_parts[: len(actual_parts) - len(written_parts)]).resolve()


def _counted_from(uri: str, *, root: Path) -> str:
    """The address whose relative SQLite file, if it names one, is in or below ``root``."""
    named = sqlite_file(uri)
    if named is None or named[0].is_absolute():
        return uri
    path, query = named
    return sqlite_address(root / path, query=query)


def _file_counted_from(value: Any, *, path: str, root: Path) -> Any:
    """A value of the base, counted from ``root`` where it is the path of a file or folder that lies there."""
    if path not in FILES or not isinstance(value, str) or not value or "://" in value or not (root / value).exists():
        return value
    return str(root / value)
