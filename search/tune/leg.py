"""One leg of a trial on a worker: trained, saved and reported an epoch at a time."""

import errno
import os
import shutil
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from search.engine.reports import Ended, EpochReport, Infeasible, Measured, StopSearch, plain_report
from search.ledger.files import epoch_folder
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import Fingerprints, held_to
from trainable.errors import OutageError, UserError
from trainable.metrics import best_epoch
from trainable.training.checkpoint import BrokenCheckpointError, check_whole, read_state
from trainable.training.fit import DivergedError, Epoch, fit
from trainable.training.footprint import measure_network
from trainable.training.memory import free_memory, halved, limit_memory


class WorkerLeg:
    """The leg that ``settings`` describe (see :func:`search.tune.worker.leg_settings`); images are opened with its first step."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._begun: float | None = time.perf_counter()
        torch.set_num_threads(settings["threads"])
        self._folder, self._directory = Path(settings["folder"]), str(settings["directory"])
        self._fingerprints: Fingerprints = settings["fingerprints"]
        self._metric = str(settings["trial"]["train"]["metric"])
        self._measure: list[str] = settings["measure"]
        self._trial = TrialConfig.model_validate(settings["trial"])
        self._depths, self._start = settings["depths"], int(settings["start"])
        self._halvings, self._freed, self._over_share = 0, False, False
        self._share = float(settings["gpu"]) if settings["packed"] else None
        limit_memory(min(1.0, settings["gpu"]) or 1.0)
        self._epochs = self._begin()

    def _begin(self) -> Generator[Epoch, None, str]:
        resume_from = resume_point(self._folder, self._start)
        return fit(self._trial, resume_from=resume_from, depths=self._depths)

    def step(self) -> dict[str, Any]:
        """Report what the network takes, where asked; then train, save and report one epoch, or say why there is none."""
        enter(self._directory)  # Tune may have moved in between
        try:
            if self._measure:
                return self._measured()
            with held_to(self._fingerprints):  # images are opened when the first epoch is asked for
                epoch = next(self._epochs)
            metrics = {**epoch.metrics, **self._started(epoch)}
            if self._share is not None:
                metrics["usage/gpu_share"] = self._share
            if self._over_share:
                metrics["usage/over_share"] = 1.0
            if self._halvings:
                metrics["usage/halvings"] = float(self._halvings)
            self._start, self._freed = epoch.number, False
            epoch.save(epoch_folder(self._folder, epoch.number))
            prune_checkpoints(self._folder, newest=epoch.number, metric=self._metric)
        except StopIteration as end:
            return plain_report(Ended(end.value))
        except DivergedError as error:
            return plain_report(Infeasible(f"diverged: {error}"))
        except torch.OutOfMemoryError as error:
            return self._in_less_memory(error)
        except (UserError, OutageError) as error:
            return plain_report(StopSearch(str(error)))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return plain_report(StopSearch(f"{self._folder}: the disk is full; free space, then resume"))
            raise
        return plain_report(EpochReport(number=epoch.number, metrics=metrics, ended=epoch.ended))

    def _in_less_memory(self, error: torch.OutOfMemoryError) -> dict[str, Any]:
        """Try the epoch again: as it was, with all memory that is free on the GPU, then in ever smaller batches."""
        less = halved(self._trial) if self._freed else self._trial
        if less is None:
            size = self._trial.train.batch_size
            return plain_report(Infeasible(f"out of GPU memory with batches of {size}: {str(error).splitlines()[0]}"))
        self._halvings += self._freed
        self._over_share = self._share is not None and self._share < 1
        self._freed, self._trial = True, less
        self._epochs.close()
        free_memory()
        limit_memory(1.0)
        self._epochs = self._begin()
        return self.step()

    def _measured(self) -> dict[str, Any]:
        names, self._measure = self._measure, []
        with held_to(self._fingerprints):
            return plain_report(Measured(measure_network(self._trial, names=names)))

    def _started(self, epoch: Epoch) -> dict[str, float]:
        """With the leg's first epoch, the seconds from its being handed over until that epoch began."""
        if self._begun is None:
            return {}
        seconds = time.perf_counter() - self._begun - epoch.metrics["usage/seconds"]
        self._begun = None
        return {"usage/start_seconds": seconds}

    def close(self) -> None:
        """Let the trial go, and the memory that it had of a GPU, which others may share."""
        self._epochs.close()
        free_memory()


def enter(directory: str) -> None:
    """Let relative paths count from the driver's working directory in a worker, which a cluster may have started elsewhere.

    Where a node does not have it, only absolute paths can be meant, and the others are said not to exist.
    """
    with suppress(OSError):
        os.chdir(directory)


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
