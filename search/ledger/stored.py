"""What a search was begun as and what it noted, opened from its folder."""

import json
from pathlib import Path

from pydantic import ValidationError

from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.sqlite_address import sqlite_address, sqlite_file
from search.ledger.trials import Trial
from search.space.spec import SearchSpec, resume_command
from trainable.config.renamed import space_with_new_names
from trainable.config.validation import did_you_mean, explain
from trainable.errors import SettingsError, UserError

SPEC_FILE = "search.json"


def stored_spec(folder: Path, *, trials: int | None = None) -> SearchSpec:
    """What a search in ``folder`` was begun as, with another number of trials if given, where it lies now.

    It may have been moved, or be looked at from another working directory: ``search.folder`` is that of ``folder``, whatever the
    file says. Raises NoSearchError where there is none, naming the nearest one.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        names = [other.parent.name for other in folder.parent.glob(f"*/{SPEC_FILE}")]
        raise NoSearchError(f"{folder}: no search of this name{did_you_mean(folder.name, names)}")
    return _where_it_lies(_written_spec(path, trials=trials), folder=folder)


def as_written(spec: SearchSpec, *, folder: Path) -> SearchSpec:
    """The search as the file in its ``folder`` is to keep it.

    ``search.folder`` and ``tracking.uri`` stay as they were written while they name the same places as those of ``spec``, so that
    they hold for the working directory in which the search was begun.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        return spec
    written = _written_spec(path)
    if _begun_in(folder, search_folder=written.search.folder) is None:
        return spec
    search = spec.search.model_copy(update={"folder": written.search.folder})
    is_same = _where_it_lies(written, folder=folder).tracking.uri == spec.tracking.uri
    uri = written.tracking.uri if is_same else spec.tracking.uri
    return spec.model_copy(update={"search": search, "tracking": spec.tracking.model_copy(update={"uri": uri})})


def check_called_as_its_folder(spec: SearchSpec, *, folder: Path) -> None:
    """Raise UserError for a folder that was renamed, beside which the search would be begun anew."""
    if folder.name != spec.search.name:
        raise UserError(f"{folder}: holds the search {spec.search.name!r}; call the folder so to go on with it")


def open_ledger(folder: Path) -> tuple[SearchSpec, Ledger]:
    """A search's specification and its ledger, for reading."""
    spec = stored_spec(folder)
    return spec, open_ledger_of(spec, folder=folder)


def open_ledger_of(spec: SearchSpec, *, folder: Path) -> Ledger:
    """Open the ledger of the search ``spec``; raises UserError where there is none."""
    return ledgers.open_existing(folder, name=spec.search.name, storage=spec.search.storage, space=spec.space)


def is_finished(ledger: Ledger, *, trials: list[Trial]) -> bool:
    """Whether everything of a search is decided and measured."""
    return ledger.notes.finished and all(trial.state != "RUNNING" for trial in trials)


def check_finished(spec: SearchSpec, ledger: Ledger) -> None:
    """Raise UserError for a search that is not finished."""
    if not is_finished(ledger, trials=ledger.trials()):
        raise UserError(f"{spec.search.name}: is not finished; `{resume_command(spec)}` goes on with it")


def _written_spec(path: Path, *, trials: int | None = None) -> SearchSpec:
    document = space_with_new_names(json.loads(path.read_text()))
    if trials is not None:
        document["search"]["trials"] = trials
    try:
        return SearchSpec.model_validate(document)
    except ValidationError as error:
        raise SettingsError([f"{path}: {line}" for line in explain(error, model=SearchSpec)]) from None


def _where_it_lies(written: SearchSpec, *, folder: Path) -> SearchSpec:
    """The search in ``folder``. A relative file of MLflow's counts from where the search was begun, if that can be told."""
    search = written.search.model_copy(update={"folder": str(folder.parent)})
    root = _begun_in(folder, search_folder=written.search.folder)
    is_elsewhere = root is not None and root != Path.cwd().resolve()
    uri = _counted_from(written.tracking.uri, root=root) if root is not None and is_elsewhere else written.tracking.uri
    return written.model_copy(update={"search": search, "tracking": written.tracking.model_copy(update={"uri": uri})})


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
