"""What a search was begun as and what it noted, opened from its folder."""

import json
from pathlib import Path

from pydantic import ValidationError

from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.trials import Trial
from search.space.spec import SearchSpec, resume_command
from trainable.config.validation import did_you_mean, explain
from trainable.errors import SettingsError, UserError

SPEC_FILE = "search.json"


def stored_spec(folder: Path, *, trials: int | None = None) -> SearchSpec:
    """What a search in ``folder`` was begun as, with another number of trials if given.

    Raises NoSearchError where there is none, naming the nearest one.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        names = [other.parent.name for other in folder.parent.glob(f"*/{SPEC_FILE}")]
        raise NoSearchError(f"{folder}: no search of this name{did_you_mean(folder.name, names)}")
    document = json.loads(path.read_text())
    if trials is not None:
        document["search"]["trials"] = trials
    try:
        return SearchSpec.model_validate(document)
    except ValidationError as error:
        raise SettingsError([f"{path}: {line}" for line in explain(error, model=SearchSpec)]) from None


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
