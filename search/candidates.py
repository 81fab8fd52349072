"""What a search offers where it is better than its best trial: a soup of its best trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.checkpoints import best_checkpoint, soup_path
from search.ledger import Ledger
from search.spec import SearchSpec
from search.trials import leaders
from search.tune import worker
from search.tune.cluster import submit
from trainable.metrics import is_better


def make_soup(spec: SearchSpec, ledger: Ledger, *, folder: Path, place: Mapping[str, Any]) -> dict[str, Any] | None:
    """The soup of the search's best trials as the ledger notes it; None where there are fewer than two to average.

    ``kept`` says whether it beats the best of them on validation images; ``of`` names the trials it was made from, so that
    a search that goes on makes another.
    """
    metric = spec.search.metric
    if spec.search.choose_by:  # a soup is judged by one metric
        return None
    ordered = [
        trial for trial in leaders(ledger.trials(), metric=metric) if best_checkpoint(folder, trial, metric=metric)
    ]
    configs = {trial.number: spec.trial_config(spec.space.decoded(trial.params)) for trial in ordered}
    if ordered:
        positions = worker.alike([configs[trial.number] for trial in ordered])
        ordered = [ordered[index] for index in positions][: spec.soup]
    if len(ordered) < 2:
        return None
    numbers = [trial.number for trial in ordered]
    known: dict[str, Any] | None = ledger.notes.get("soup")
    if known is not None and known["of"] == numbers:
        return known
    ingredients = [
        {
            "number": trial.number,
            "trial": configs[trial.number],
            "checkpoint": str((best_checkpoint(folder, trial, metric=metric) or folder).resolve()),
            "value": trial.best(metric),
        }
        for trial in ordered
    ]
    soup_path(folder).parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = submit(worker.soup_of, ingredients, path=str(soup_path(folder)), **place)()
    value = found["measured"][metric]
    best = ordered[0].best(metric)
    note = {
        "of": numbers,
        "value": value,
        "kept": len(found["members"]) > 1 and is_better(value, best, metric=metric),
    } | found
    ledger.note("soup", note)
    return note
