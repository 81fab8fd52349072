"""The study of a finished search's refits, in which its best recipes are trained again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.ledger import ledger as ledgers
from search.ledger.files import kept_checkpoint
from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.notes import SoupResult, made, plain
from search.ledger.stored import study_name
from search.ledger.trials import Trial
from search.space.dimension import Number
from search.space.space import Space, make_space
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.seeds import derive

FOLDER = "refits"
SEED = "seed"
MOST_SEED = 2**31 - 1
SOUPS = "soups"
# Keys in the study; a soup's ends with its seed, a package's with that of its content.
_CANDIDATE, _TESTED, _SOUP, _PACKAGE = "candidate", "test", "soup ", "package "


@dataclass(frozen=True, kw_only=True)
class CandidateNote:
    """What a promotion confirmed last: its package below the search's folder, its recipe in words."""

    package: str
    recipe: str


@dataclass(frozen=True, kw_only=True)
class RefitNotes:
    """Every note of the study of refits, as it stands. Behind each: who writes it."""

    candidate: CandidateNote | None = None  # promotion.promote
    tested: tuple[str, ...] = ()  # promotion.promote: digests of the candidates that have read the test split
    soups: Mapping[int, SoupResult] = field(default_factory=dict)  # promotion.refit, by seed
    packages: Mapping[str, str] = field(default_factory=dict)  # promotion.candidate: digest of each package by its key


@dataclass(frozen=True, kw_only=True)
class FinishedSearch:
    """A search with its refits: ``ledger`` has its trials, ``refits`` those that are trained again, ``folder`` all its files."""

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
        return [fresh_seed(self.spec, index=index) for index in range(self.spec.promote.confirm.seeds)]

    def find_refit(self, number: int, *, seed: int) -> Trial:
        """Find the refit of a trial with a seed, the newest where there are several."""
        of = self.ledger.trial(number)
        wanted = ({**of.params, SEED: seed}, of.overrides)
        return next(trial for trial in reversed(self.refits.trials()) if (trial.params, trial.overrides) == wanted)

    def refit_config(self, number: int) -> dict[str, Any]:
        """Give the configuration of a refit."""
        refit = self.refits.trial(number)
        return refit_config(self.spec, refit.params, overrides=refit.overrides)

    def refit_checkpoint(self, number: int) -> Path:
        """Find the best checkpoint of a refit. Raises UserError where it is gone."""
        return kept_checkpoint(self.refit_folder, self.refits.trial(number), metric=self.metric)

    def soup_path(self, *, seed: int) -> Path:
        """The file of the soup of one seed's refits, which may not be there yet."""
        return (self.refit_folder / SOUPS / f"{seed}.safetensors").resolve()


def fresh_seed(spec: SearchSpec, *, index: int) -> int:
    """Draw a seed that no trial of a search had."""
    return derive(spec.search.seed, "refit", index) % MOST_SEED


def refit_notes(refits: Ledger) -> RefitNotes:
    """Read the notes of the study of refits."""
    stored = refits.stored_notes()
    candidate = stored.get(_CANDIDATE)
    return RefitNotes(
        candidate=None if candidate is None else CandidateNote(package=candidate["package"], recipe=candidate["said"]),
        tested=tuple(stored.get(_TESTED, {"candidates": ()})["candidates"]),
        soups={
            int(key.removeprefix(_SOUP)): made(SoupResult, soup)
            for key, soup in stored.items()
            if key.startswith(_SOUP)
        },
        packages={key.removeprefix(_PACKAGE): digest for key, digest in stored.items() if key.startswith(_PACKAGE)},
    )


def note_candidate(refits: Ledger, candidate: CandidateNote) -> None:
    """Note what was confirmed last."""
    refits.store_note(_CANDIDATE, {"package": candidate.package, "said": candidate.recipe})


def note_tested(refits: Ledger, digests: Sequence[str]) -> None:
    """Note which candidates have read the test split."""
    refits.store_note(_TESTED, {"candidates": list(digests)})


def note_package(refits: Ledger, key: str, *, digest: str) -> None:
    """Note the digest of a package that was just made, by which it is known again."""
    refits.store_note(f"{_PACKAGE}{key}", digest)


def note_soup(refits: Ledger, soup: SoupResult, *, seed: int) -> None:
    """Note the soup of the refits of one seed."""
    refits.store_note(f"{_SOUP}{seed}", plain(soup))


def open_refits(spec: SearchSpec, *, folder: Path) -> Ledger:
    """Open the study of the refits, in the search's own storage; it is made where there is none."""
    metric = spec.search.metric
    return ledgers.create(
        folder,
        name=_study(spec, folder=folder),
        storage=spec.search.storage,
        metric=metric,
        space=refit_space(spec),
        notes={"metric": metric},
    )


def existing_refits(spec: SearchSpec, *, folder: Path) -> Ledger | None:
    """Open the study of the refits for reading; None where there is none. Raises LedgerFailsError."""
    try:
        return ledgers.open_existing(
            folder, name=_study(spec, folder=folder), storage=spec.search.storage, space=refit_space(spec)
        )
    except NoSearchError:
        return None


def refit_space(spec: SearchSpec) -> Space:
    """Make the space of refits: the search's with the seed."""
    return make_space({**spec.space.dimensions, SEED: Number(low=0, high=MOST_SEED, whole=True)})


def refit_config(
    spec: SearchSpec, params: Mapping[str, Value], *, overrides: Mapping[str, Value] | None = None
) -> dict[str, Any]:
    """Make the configuration of a refit with these values, and others in place of them and of what is fixed."""
    searched = {path: value for path, value in params.items() if path != SEED}
    return spec.refit_config({**searched, **(overrides or {})}, seed=int(str(params[SEED])))


def _study(spec: SearchSpec, *, folder: Path) -> str:
    return f"{study_name(spec, folder=folder)}/{FOLDER}"  # no search's name has a slash
