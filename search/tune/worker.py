"""What runs on a worker: one warm process that takes trial after trial.

Only plain dicts come in and go out; what a trial leaves behind is its checkpoints.
"""

import errno
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from search.engine.reports import Ended, EpochReport, Infeasible, StopSearch, plain_report
from search.ledger.files import epoch_folder
from search.tune.place import Place, enter
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import Fingerprints, held_to
from trainable.errors import OutageError, UserError
from trainable.metrics import best_epoch
from trainable.training.checkpoint import BrokenCheckpointError, check_whole, read_state
from trainable.training.fit import DivergedError, Epoch, fit


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Trains one leg of a trial an epoch a step; every epoch is saved before it is reported."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the leg that ``config`` describes (see :func:`leg_settings`)."""
        torch.set_num_threads(config["threads"])
        self._folder, self._directory = Path(config["folder"]), str(config["directory"])
        start = int(config["start"])
        self._fingerprints: Fingerprints = config["fingerprints"]
        self._metric = str(config["trial"]["train"]["metric"])
        trial = TrialConfig.model_validate(config["trial"])
        self._epochs: Generator[Epoch, None, str] = fit(trial, resume_from=resume_point(self._folder, start))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next leg in this process."""
        self._epochs.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train, save and report one epoch, or say why there is none."""
        enter(self._directory)  # Tune may have moved in between
        try:
            with held_to(self._fingerprints):  # images are opened when the first epoch is asked for
                epoch = next(self._epochs)
            epoch.save(epoch_folder(self._folder, epoch.number))
            prune_checkpoints(self._folder, newest=epoch.number, metric=self._metric)
        except StopIteration as end:
            return plain_report(Ended(end.value))
        except DivergedError as error:
            return plain_report(Infeasible(f"diverged: {error}"))
        except torch.OutOfMemoryError as error:
            return plain_report(Infeasible(f"out of GPU memory: {str(error).splitlines()[0]}"))
        except (UserError, OutageError) as error:
            return plain_report(StopSearch(str(error)))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return plain_report(StopSearch(f"{self._folder}: the disk is full; free space, then resume"))
            raise
        return plain_report(EpochReport(number=epoch.number, metrics=epoch.metrics, ended=epoch.ended))

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the leg's own checkpoints are the state."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """Let the trial go."""
        self._epochs.close()


def leg_settings(*, trial: dict[str, Any], folder: Path, start: int, place: Place) -> dict[str, Any]:
    """Say as plain data what a worker needs for a leg: configuration, checkpoint folder, the epoch it stands at, its place."""
    place_settings = {"threads": place.threads, "fingerprints": place.fingerprints, "directory": place.directory}
    return {"trial": trial, "start": start, "folder": str(folder), **place_settings}


def resume_point(folder: Path, start: int) -> Path | None:
    """The checkpoint of epoch ``start``, else the last whole one before it; None to begin anew."""
    for epoch in range(start, 0, -1):
        candidate = epoch_folder(folder, epoch)
        try:
            check_whole(candidate)
        except BrokenCheckpointError:
            continue
        return candidate
    return None


def prune_checkpoints(folder: Path, *, newest: int, metric: str) -> None:
    """Keep the newest checkpoint, the one before it, and the best up to each.

    The newest is not yet in the ledger: a search that is killed now resumes from the one before.
    """
    history = {int(e): v for e, v in read_state(epoch_folder(folder, newest))["history"].items()}
    before = {epoch: value for epoch, value in history.items() if epoch < newest}
    keep = {newest, newest - 1, best_epoch(history, metric=metric), best_epoch(before, metric=metric)}
    names = {epoch_folder(folder, epoch).name for epoch in keep if epoch is not None}
    for path in folder.glob("epoch_*"):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)
