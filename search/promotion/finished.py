"""A finished search with the study of its refits: what every step of a promotion needs to know."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.ledger.files import kept_checkpoint
from search.ledger.ledger import Ledger
from search.ledger.refits import FOLDER, MOST_SEED, SEED, refit_config, refit_notes
from search.ledger.trials import Trial
from search.space.spec import SearchSpec
from trainable.seeds import derive

SOUPS = "soups"


@dataclass(frozen=True, kw_only=True)
class FinishedSearch:
    """``ledger`` has the trials of the search, ``refits`` those that are trained again; ``folder`` all its files."""

    spec: SearchSpec
    ledger: Ledger
    refits: Ledger
    folder: Path

    @property
    def metric(self) -> str:
        """The metric of validation images that decides."""
        return self.spec.search.metric

    @property
    def fingerprints(self) -> Mapping[str, Collection[str]]:
        """The fingerprints that its data sets may have, by the field of ``data`` that names them."""
        return self.ledger.notes.data.fingerprints

    @property
    def num_test_reads(self) -> int:
        """How often the search and its promotions have read the test split."""
        test = self.ledger.notes.test
        assert test is not None, "a finished search has read it once"
        return test.reads + len(refit_notes(self.refits).tested)

    @property
    def refit_folder(self) -> Path:
        """The folder in which the refits lie."""
        return self.folder / FOLDER

    def fresh_seeds(self) -> list[int]:
        """Draw seeds that no trial of the search had; more of them begin with the same."""
        spec = self.spec
        return [derive(spec.search.seed, "refit", index) % MOST_SEED for index in range(spec.promote.confirm.seeds)]

    def find_refit(self, number: int, *, seed: int) -> Trial:
        """Find the refit of a trial with a seed, the newest where there are several."""
        wanted = {**self.ledger.trial(number).params, SEED: seed}
        return next(trial for trial in reversed(self.refits.trials()) if trial.params == wanted)

    def refit_config(self, number: int) -> dict[str, Any]:
        """Give the configuration of a refit."""
        return refit_config(self.spec, self.refits.trial(number).params)

    def refit_checkpoint(self, number: int) -> Path:
        """Find the best checkpoint of a refit. Raises UserError where it is gone."""
        return kept_checkpoint(self.refit_folder, self.refits.trial(number), metric=self.metric)

    def soup_path(self, *, seed: int) -> Path:
        """The file of the soup of one seed's refits, which may not be there yet."""
        return (self.refit_folder / SOUPS / f"{seed}.safetensors").resolve()
