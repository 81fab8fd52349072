"""The study of a search's refits: opened, read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger
from search.space.dimension import Number
from search.space.space import Space, make_space
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.errors import UserError

FOLDER = "refits"
SEED = "seed"
MOST_SEED = 2**31 - 1
CANDIDATE = "candidate"  # the note of what was confirmed last


def open_refits(spec: SearchSpec, *, folder: Path) -> Ledger:
    """The study of the refits, in the search's own storage; made where there is none."""
    metric = spec.search.metric
    return ledgers.create(
        folder, name=_study(spec), storage=spec.search.storage, metric=metric, notes={"metric": metric}
    )


def existing_refits(spec: SearchSpec, *, folder: Path) -> Ledger | None:
    """The same for reading; None where there is none."""
    try:
        return ledgers.open_existing(folder, name=_study(spec), storage=spec.search.storage)
    except UserError:
        return None


def refit_space(spec: SearchSpec) -> Space:
    """The search's space with the seed."""
    return make_space({**spec.space.dimensions, SEED: Number(0, MOST_SEED, whole=True)})


def refit_config(spec: SearchSpec, params: Mapping[str, Value]) -> dict[str, Any]:
    """The configuration of a refit with these decoded values."""
    own = {path: value for path, value in params.items() if path != SEED}
    return spec.refit_config(own, seed=int(str(params[SEED])))


def _study(spec: SearchSpec) -> str:
    """No search's name has a slash."""
    return f"{spec.search.name}/{FOLDER}"
