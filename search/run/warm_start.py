"""What a search takes from those before it: looked up once, when it begins, and noted."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from search.engine.portfolio import EarlierSearch, portfolio
from search.ledger.ledger import Ledger
from search.ledger.notes import DataFacts, WarmStart
from search.ledger.stored import SPEC_FILE, open_ledger
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.errors import OutageError, UserError
from trainable.terminal import plain

logger = logging.getLogger(__name__)


def note_warm_start(spec: SearchSpec, ledger: Ledger, *, data: DataFacts) -> None:
    """Choose what the search begins with and note it, where it is asked for and nothing is noted yet.

    A search that has trials began without: it stays so.
    """
    if spec.search.warm_start is None or ledger.notes.warm_start is not None:
        return
    if ledger.trials():
        logger.warning("search.warm_start: has no effect on a search that has begun without")
        return
    start = choose_warm_start(spec, data=data)
    ledger.note(warm_start=start)
    for line in warm_start_lines(start):
        logger.warning(line)


def choose_warm_start(spec: SearchSpec, *, data: DataFacts) -> WarmStart:
    """Choose from all searches in the folder of this one; what cannot be read, or asked, is left out with a line."""
    searches, lines = [], []
    for folder in sorted(path.parent for path in Path(spec.search.folder).glob(f"*/{SPEC_FILE}")):
        if folder.name == spec.search.name:
            continue
        try:
            searches.append(_open(folder, spec=spec))
        except Exception as error:  # whatever lies in a folder that others write to, this search begins
            is_told = isinstance(error, UserError | OutageError)
            lines.append(f"{folder.name}: left out, {error if is_told else 'its ledger cannot be read'}")
    start = portfolio(searches, spec=spec, data=data)
    return replace(start, notes=(*lines, *start.notes))


def warm_recipes(spec: SearchSpec, ledger: Ledger) -> tuple[dict[str, Value], ...]:
    """The noted recipes that the search begins with; those of a backbone that was not selected are left out.

    A refresh writes what its searches begin with into their ``try_first`` itself.
    """
    start = ledger.notes.warm_start
    if start is None or start.by != "auto":
        return ()
    return tuple(dict(recipe) for recipe in start.recipes if not spec.space.problems(recipe))


def warm_start_lines(start: WarmStart) -> list[str]:
    """What was looked at, what was taken and what could not be, a line each."""
    return [plain(f"warm start: {line}") for line in _said(start)]


def _said(start: WarmStart) -> Iterator[str]:
    yield from (f"looked at {line}" for line in start.looked_at)
    yield from (f"takes {whose}" for whose in start.whose)
    yield from start.notes
    if not start.recipes:
        yield "there is nothing to take, the search begins as any other"


def _open(folder: Path, *, spec: SearchSpec) -> EarlierSearch:
    """Open a search for a look. Raises UserError for one that tells nothing, or knows what this one may not."""
    earlier, ledger = open_ledger(folder)
    trials, data, metric = ledger.trials(), ledger.notes.data, spec.search.metric
    if data.oracle and not spec.base.get("data.oracle"):
        raise UserError("it has read the labels of a target")
    if all(trial.best(metric) is None for trial in trials):
        raise UserError(f"no trial of it has a {metric}")
    return EarlierSearch(spec=earlier, trials=trials, data=data)
