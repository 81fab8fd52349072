"""Who follows a search: what they are told, from its first record to how it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.engine.rule import Rule
from search.ledger.ledger import Ledger
from search.ledger.trials import Trial
from search.space.spec import SearchSpec


class Listener:
    """Somebody who follows a search: the screen, MLflow. What it does not override it does not hear."""

    def begin(self, ledger: Ledger, *, spec: SearchSpec, rule: Rule) -> None:
        """The ledger is open and the data are known."""

    def changed(self, trial: Trial) -> None:
        """A trial's record has changed."""

    def refit_changed(self, refit: Trial, *, of: int) -> None:
        """The record has changed of a refit of a trial, by which the search confirms its last candidates."""

    def pulse(self) -> None:
        """Some time has passed."""

    def end(self, ledger: Ledger, *, outcome: "Outcome") -> None:
        """No more will come from this process."""


@dataclass(frozen=True)
class Outcome:
    """How this process's part of a search ended: ``finished``, ``interrupted`` (to be resumed), or ``failed``."""

    status: Literal["finished", "interrupted", "failed"]
    reason: str
    folder: Path
