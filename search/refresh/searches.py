"""The searches of a refresh, made from the space file's."""

from collections.abc import Mapping
from pathlib import Path

from search.ledger.notes import WarmStart
from search.ledger.refits import MOST_SEED
from search.ledger.refreshes import Record
from search.refresh.warm_start import warm_spec
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.seeds import derive

KEEP = "data.keep_splits"


def search_name(spec: SearchSpec, record: Record, *, is_refit: bool = False) -> str:
    """The name of a refresh's search."""
    return f"{spec.search.name}.{record.key[:8]}" + (".refit" if is_refit else "")


def derived_search(spec: SearchSpec, *, name: str, keep_splits: Path | None) -> SearchSpec:
    """The search under another name, in the same experiment, for the same registered model."""
    document = spec.model_dump()
    document["search"]["name"] = name
    document["tracking"]["experiment"] = spec.tracking.experiment or spec.search.name
    document["promote"]["model"] = spec.model_name
    # With the same seed its random configurations would be those of the search before.
    document["search"]["seed"] = derive(spec.search.seed, "refresh", name) % MOST_SEED
    if keep_splits is not None:
        document["base"][KEEP] = str(keep_splits)
    return SearchSpec.model_validate(document)


def full_search(spec: SearchSpec, *, name: str, keep_splits: Path | None) -> SearchSpec:
    """The whole search from its beginning; the file's own where it has the file's own name."""
    return spec if name == spec.search.name else derived_search(spec, name=name, keep_splits=keep_splits)


def warm_search(spec: SearchSpec, start: WarmStart, *, name: str, keep_splits: Path | None) -> SearchSpec:
    """The search with a warm start and a reduced budget."""
    return warm_spec(derived_search(spec, name=name, keep_splits=keep_splits), start)


def refit_search(spec: SearchSpec, recipe: Mapping[str, Value], *, name: str, keep_splits: Path | None) -> SearchSpec:
    """One configuration, trained in full: a search of one trial."""
    document = derived_search(spec, name=name, keep_splits=keep_splits).model_dump()
    document |= {"try_first": [dict(recipe)], "soup": 0, "baselines": [], "select_backbones": None}
    document["search"] |= {"trials": 1, "budget": {}, "choose_by": [], "warm_start": None}
    document["scheduler"]["name"] = "none"
    document["promote"]["confirm"]["top"] = 1
    return SearchSpec.model_validate(document)


def continue_search(begun: SearchSpec, *, now: SearchSpec) -> SearchSpec:
    """A search as it was begun, where the images and on what machines they are now."""
    places = {path: now.base[path] for path in ("data.path", "data.cache", "data.workers") if path in now.base}
    changed = {"resources": now.resources, "tracking": now.tracking, "base": begun.base | places}
    return SearchSpec.model_validate(begun.model_copy(update=changed).model_dump())


def with_promotion_of(spec: SearchSpec, *, begun: SearchSpec) -> SearchSpec:
    """A search as it was begun, to be promoted as the space file asks now; what is refitted stays as it was begun."""
    kept = {"model": spec.model_name, "confirm": begun.promote.confirm}
    return begun.model_copy(update={"promote": spec.promote.model_copy(update=kept)})
