"""The searches beside a refresh: opened once, compared with what the refresh is about."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.refits import existing_refits
from search.ledger.refreshes import Record, space_identity
from search.ledger.stored import is_finished, open_ledger
from search.space.identity import identity_difference
from search.space.spec import SearchSpec

OpenSearch = tuple[SearchSpec, Ledger]


class EarlierSearches:
    """The searches in one folder by name; an open ledger reads what is written meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, OpenSearch] = {}

    def find(self, name: str) -> OpenSearch | None:
        """Open a search; None where there is none. Raises LedgerFailsError."""
        if name not in self._open:
            try:
                self._open[name] = open_ledger(self._folder / name)
            except NoSearchError:
                return None
        return self._open[name]

    def open_anew(self, name: str) -> OpenSearch:
        """Open a search as it stands after it has run. Raises NoSearchError."""
        self._open[name] = open_ledger(self._folder / name)
        return self._open[name]

    def find_finished(self, name: str) -> OpenSearch | None:
        """Open a search that is finished; None where there is none."""
        search = self.find(name)
        return search if search is not None and is_finished(search[1], trials=search[1].trials()) else None

    def is_of(self, name: str, record: Record) -> bool:
        """Whether there is a search of this name that is of the space and the images of a refresh."""
        search = self.find(name)
        if search is None:
            return False
        spec, ledger = search
        is_same_space = not identity_difference(space_identity(spec), record.identity)
        return is_same_space and ledger.notes.data.fingerprint == record.fingerprint

    def has_only_failures(self, name: str) -> bool:
        """Whether every trial of a search is decided, and none is any good."""
        search = self.find(name)
        trials = search[1].trials() if search is not None else []
        return bool(trials) and all(trial.state == "FAILED" for trial in trials)

    def space_changes(self, record: Record, *, names: Sequence[str], done: Sequence[Record]) -> list[str] | None:
        """How the space differs from what was searched last, nothing where it does not; None where nothing was searched.

        That is the space of the last of the refreshes that are ``done``, else that of the first of these finished searches.
        """
        finished = [search for name in names if (search := self.find_finished(name)) is not None]
        identities = [*(earlier.identity for earlier in done[-1:]), *(space_identity(spec) for spec, _ in finished)]
        if any(not identity_difference(identity, record.identity) for identity in identities):
            return []
        return identity_difference(identities[0], record.identity) if identities else None

    def work(self, names: Iterable[str], *, weight: float) -> list[tuple[datetime, float]]:
        """When the trials of these searches last reported, and the hours they took, times a weight; refits too."""
        moments = []
        for name in dict.fromkeys(names):
            search = self.find(name)
            if search is not None:
                refits = existing_refits(search[0], folder=self._folder / name)
                trials = [*search[1].trials(), *(refits.trials() if refits is not None else ())]
                moments += [
                    (trial.epochs[-1].recorded, trial.gpu_seconds * weight / 3600) for trial in trials if trial.epochs
                ]
        return moments
