"""What a search offers in the end: its best trial's checkpoint, and a soup of its best trials where that is better."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.conductor import checkpoint_folder
from search.ledger import Ledger
from search.spec import SearchSpec
from search.trials import Trial, leaders
from search.tune import worker
from search.tune.cluster import submit
from trainable.metrics import best_epoch, is_better

SOUP_FOLDER = "soup"


def best_checkpoint(folder: Path, trial: Trial, *, metric: str) -> Path | None:
    """The checkpoint of a trial's best epoch, if it is still there."""
    epoch = best_epoch(trial.values(metric), metric=metric)
    path = worker.epoch_folder(checkpoint_folder(folder, trial.number), epoch or 0)
    return path if path.is_dir() else None


def tidy(folder: Path, trial: Trial, *, metric: str) -> None:
    """Of a trial that has ended only its best checkpoint stays."""
    best = best_checkpoint(folder, trial, metric=metric)
    for path in checkpoint_folder(folder, trial.number).glob("*"):
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def soup_path(folder: Path) -> Path:
    """The weights of a search's soup."""
    return folder.resolve() / SOUP_FOLDER / "soup.safetensors"


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
