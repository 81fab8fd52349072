"""The study of a search's refits: opened, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.notes import SoupResult, made, plain
from search.space.dimension import Number
from search.space.space import Space, make_space
from search.space.spec import SearchSpec
from search.space.values import Value

FOLDER = "refits"
SEED = "seed"
MOST_SEED = 2**31 - 1
_CANDIDATE, _TESTED, _SOUP = "candidate", "test", "soup "  # keys in the study; a soup's ends with its seed


@dataclass(frozen=True, kw_only=True)
class CandidateNote:
    """What a promotion confirmed last: its package below the search's folder, its recipe in words."""

    package: str
    said: str


@dataclass(frozen=True, kw_only=True)
class RefitNotes:
    """Every note of the study of refits, as it stands. Behind each: who writes it."""

    candidate: CandidateNote | None = None  # promotion.promote
    tested: tuple[str, ...] = ()  # promotion.promote: digests of the candidates that have read the test split
    soups: Mapping[int, SoupResult] = field(default_factory=dict)  # promotion.refit, by seed


def refit_notes(refits: Ledger) -> RefitNotes:
    """Read the notes of the study of refits."""
    stored = refits.stored_notes()
    candidate = stored.get(_CANDIDATE)
    return RefitNotes(
        candidate=None if candidate is None else made(CandidateNote, candidate),
        tested=tuple(stored.get(_TESTED, {"candidates": ()})["candidates"]),
        soups={
            int(key.removeprefix(_SOUP)): made(SoupResult, soup)
            for key, soup in stored.items()
            if key.startswith(_SOUP)
        },
    )


def note_candidate(refits: Ledger, candidate: CandidateNote) -> None:
    """Note what was confirmed last."""
    refits.store_note(_CANDIDATE, plain(candidate))


def note_tested(refits: Ledger, digests: Sequence[str]) -> None:
    """Note which candidates have read the test split."""
    refits.store_note(_TESTED, {"candidates": list(digests)})


def note_soup(refits: Ledger, soup: SoupResult, *, seed: int) -> None:
    """Note the soup of the refits of one seed."""
    refits.store_note(f"{_SOUP}{seed}", plain(soup))


def open_refits(spec: SearchSpec, *, folder: Path) -> Ledger:
    """The study of the refits, in the search's own storage; made where there is none."""
    metric = spec.search.metric
    return ledgers.create(
        folder,
        name=_study(spec),
        storage=spec.search.storage,
        metric=metric,
        space=refit_space(spec),
        notes={"metric": metric},
    )


def existing_refits(spec: SearchSpec, *, folder: Path) -> Ledger | None:
    """The study of the refits for reading; None where there is none. Raises LedgerFailsError."""
    try:
        return ledgers.open_existing(folder, name=_study(spec), storage=spec.search.storage, space=refit_space(spec))
    except NoSearchError:
        return None


def refit_space(spec: SearchSpec) -> Space:
    """The search's space with the seed."""
    return make_space({**spec.space.dimensions, SEED: Number(low=0, high=MOST_SEED, whole=True)})


def refit_config(spec: SearchSpec, params: Mapping[str, Value]) -> dict[str, Any]:
    """The configuration of a refit with these values."""
    own = {path: value for path, value in params.items() if path != SEED}
    return spec.refit_config(own, seed=int(str(params[SEED])))


def _study(spec: SearchSpec) -> str:
    """No search's name has a slash."""
    return f"{spec.search.name}/{FOLDER}"
