"""The files a search keeps: what they are called, which weights stay."""

import shutil
from pathlib import Path

from search.ledger.trials import Trial
from trainable.errors import UserError
from trainable.metrics import best_epoch

PICTURE = "domains.json"
PLAN = "plan.json"  # what `plan` foresaw, until the search begins
PAGE = "report.html"
PROMOTION_PAGE = "promotion.html"
MISTAKES = "mistakes.json"  # of the final candidate: on validation images, and what else of the images its page shows

SOUP_FOLDER = "soup"
KEPT_TRIALS = 20  # of those that have ended: of which a search is chosen, or averaged


def checkpoint_folder(folder: Path, number: int) -> Path:
    """Where a trial's checkpoints lie in the search's folder."""
    return folder / "checkpoints" / f"{number:04d}"


def epoch_folder(folder: Path, epoch: int) -> Path:
    """The checkpoint of an epoch."""
    return folder / f"epoch_{epoch:05d}"


def best_checkpoint(folder: Path, trial: Trial, *, metric: str) -> Path | None:
    """The checkpoint of a trial's best epoch, if it is still there."""
    epoch = best_epoch(trial.values(metric), metric=metric)
    path = epoch_folder(checkpoint_folder(folder, trial.number), epoch or 0)
    return path if path.is_dir() else None


def kept_checkpoint(folder: Path, trial: Trial, *, metric: str) -> Path:
    """:func:`best_checkpoint` from wherever it is used. Raises UserError where it is gone."""
    path = best_checkpoint(folder.resolve(), trial, metric=metric)
    if path is None:
        place = checkpoint_folder(folder, trial.number)
        raise UserError(f"{place}: the checkpoint of the best epoch is gone; put it back from a copy")
    return path


def tidy(folder: Path, trial: Trial, *, metric: str) -> None:
    """Of a trial that has ended only its best checkpoint stays; all of them where that one is not found, for lack of another."""
    best = best_checkpoint(folder, trial, metric=metric)
    if best is None:
        return
    for path in checkpoint_folder(folder, trial.number).glob("*"):
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def soup_path(folder: Path) -> Path:
    """The weights of a search's soup."""
    return folder.resolve() / SOUP_FOLDER / "soup.safetensors"
