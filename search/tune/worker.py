"""What runs on a worker: one warm process that takes trial after trial.

Only plain dicts come in and go out; what a trial leaves behind is its checkpoints.
"""

import errno
import json
import logging
import os
import platform
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ray import tune

from search.ledger.files import epoch_folder
from trainable.atomic import write_beside
from trainable.config.meta import MetaConfig
from trainable.config.pretrain import PretrainConfig
from trainable.config.trial import TrialConfig
from trainable.data.describe import describe
from trainable.data.image_guard import Fingerprints, held_to
from trainable.data.pack import Pack, open_pack
from trainable.data.readers.sample import TARGET_SPLITS
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.diagnosis.probe import linear_probe, stage_probe
from trainable.diagnosis.tsne import domain_picture as pictured
from trainable.errors import UserError
from trainable.loader.rehearsal import open_old
from trainable.metrics import best_epoch
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.pretraining.meta import meta_reports
from trainable.pretraining.training import pretrain_epochs
from trainable.statistics.scores import Evaluation
from trainable.statistics.transferability import h_score, logme
from trainable.training.checkpoint import BrokenCheckpointError, read_state
from trainable.training.device import pick_device
from trainable.training.fit import DivergedError, Epoch, fit, measure_epoch, score_checkpoint
from trainable.training.recipes import bit_hyperrule, from_scratch, source_only
from trainable.training.soup import Ingredient, make_soup, score_soup, soup_group

logger = logging.getLogger(__name__)


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Trains one leg of a trial an epoch a step; every epoch is saved before it is reported."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the leg that ``config`` describes (see :func:`leg_settings`)."""
        torch.set_num_threads(config["threads"])
        self._folder = Path(config["folder"])
        self._known = int(config["start"])
        self._fingerprints: Fingerprints = config["fingerprints"]
        self._metric = str(config["trial"]["train"]["metric"])
        trial = TrialConfig.model_validate(config["trial"])
        self._epochs: Generator[Epoch, None, str] = fit(trial, resume_from=resume_point(self._folder, self._known))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next leg in this process."""
        self._epochs.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train, save and report one epoch, or say why there is none."""
        try:
            with held_to(self._fingerprints):  # images are opened when the first epoch is asked for
                epoch = next(self._epochs)
            epoch.save(epoch_folder(self._folder, epoch.number))
            prune_checkpoints(self._folder, newest=epoch.number, metric=self._metric)
        except StopIteration as end:
            return {"outcome": "ended", "reason": end.value}
        except DivergedError as error:
            return {"outcome": "infeasible", "reason": f"diverged: {error}"}
        except torch.OutOfMemoryError as error:
            return {"outcome": "infeasible", "reason": f"out of GPU memory: {str(error).splitlines()[0]}"}
        except UserError as error:
            return {"outcome": "stop search", "reason": str(error)}
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return {
                    "outcome": "stop search",
                    "reason": f"{self._folder}: the disk is full; free space, then resume",
                }
            raise
        return {"outcome": "epoch", "epoch": epoch.number, "ended": epoch.ended, **epoch.metrics}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the leg's own checkpoints are the state."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """Let the trial go."""
        self._epochs.close()


def leg_settings(
    *, trial: dict[str, Any], folder: Path, start: int, threads: int, fingerprints: Fingerprints
) -> dict[str, Any]:
    """What a worker needs: the trial's configuration, its checkpoint folder, the epoch it stands at, CPU threads, its images."""
    place = {"folder": str(folder), "threads": threads, "fingerprints": fingerprints}
    return {"trial": trial, "start": start, **place}


def resume_point(folder: Path, start: int) -> Path | None:
    """The checkpoint of epoch ``start``, else the last whole one before it; None to begin anew."""
    for epoch in range(start, 0, -1):
        candidate = epoch_folder(folder, epoch)
        try:
            read_state(candidate)
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


def prepare(trials: list[dict[str, Any]], *, check_device: bool = True) -> dict[str, Any]:
    """Build what trials share on this node, and try that each can be built at all.

    Gives the data's ``fingerprint``, ``classes``, ``counts`` by split and class, and ``bad_images``, those of the last trial's;
    and the ``fingerprints`` of all of theirs. Raises UserError for data, an architecture or weights that cannot be used,
    and with ``check_device`` for a device that this machine does not have.
    """
    facts: dict[str, Any] = {}
    opened: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        config = TrialConfig.model_validate(trial)
        if check_device:
            pick_device(config)
        spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
        pack = open_pack(config.data, spec)
        if config.data.early_size is not None:
            open_pack(config.data, replace(spec, size=config.data.early_size))
        opened["path"].add(pack.fingerprint)
        old = open_old(config.data, spec)
        if old is not None:
            opened["rehearsal"].add(old.fingerprint)
        create_network(config, spec=spec, num_classes=len(pack.classes))
        facts = {
            "fingerprint": pack.fingerprint,
            "classes": list(pack.classes),
            "counts": pack.counts(),
            "bad_images": list(pack.bad_images),
        }
        if config.data.target is not None:
            facts |= _facts_of_target(config, pack=pack)
    return facts | {"fingerprints": {field: sorted(every) for field, every in opened.items()}}


def _facts_of_target(config: TrialConfig, *, pack: Pack) -> dict[str, Any]:
    """Its images by split, and whether its labels are read; tells the user what he should know of it."""
    for note in describe(config.data).notes:  # not kept: they come of labels
        logger.warning(note)
    return {"target": {split: len(pack.indices(split)) for split in TARGET_SPLITS}, "oracle": config.data.oracle}


def environment() -> dict[str, str]:
    """What the search ran on: versions of what decides results, the platform, the GPUs of this machine."""
    packages = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "scikit-learn", "numpy")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count())}
    return facts | {"gpus": ", ".join(gpus) or "none"} | {name: version(name) for name in packages}


def local_resources() -> dict[str, float]:
    """CPUs and GPUs of this machine."""
    return {"cpu": float(os.cpu_count() or 1), "gpu": float(torch.cuda.device_count())}


def measure(trial: dict[str, Any], *, threads: int) -> dict[str, float]:
    """What an epoch of a trial takes: seconds, bytes of a checkpoint, peak memory."""
    torch.set_num_threads(threads)
    measured = measure_epoch(TrialConfig.model_validate(trial))
    return {
        "epoch_seconds": measured.seconds,
        "checkpoint_bytes": float(measured.checkpoint_bytes),
        "peak_memory_bytes": float(measured.peak_memory_bytes),
    }


def at_work(function: Callable[..., Any], *args: Any, threads: int, fingerprints: Fingerprints, **kwargs: Any) -> Any:
    """Call one of the functions below with so many CPU threads, on no other images than these."""
    torch.set_num_threads(threads)
    with held_to(fingerprints):
        return function(*args, **kwargs)


def soup_of(ingredients: list[dict[str, Any]], *, path: str) -> dict[str, Any]:
    """The greedy soup of trials, each ``number``, ``trial``, ``checkpoint`` and ``value``; its members and scores."""
    every = [
        Ingredient(str(one["number"]), TrialConfig.model_validate(one["trial"]), Path(one["checkpoint"]), one["value"])
        for one in ingredients
    ]
    soup, evaluation, measured = make_soup(every, path=Path(path))
    tried = [{"trial": int(one.name), "value": one.score, "kept": one.kept} for one in soup.tastings]
    scores = evaluation.as_dict() | {"measured": measured}
    return {"members": [int(name) for name in soup.members], "tried": tried, **scores}


def soup_test_score(trial: dict[str, Any], *, path: str) -> dict[str, Any]:
    """Scores of a soup on the test split, which nothing else reads; for an oracle the target's too."""
    config = TrialConfig.model_validate(trial)
    return _test_scores(config, lambda split: score_soup(config, path=Path(path), split=split))


def alike(trials: list[dict[str, Any]]) -> list[int]:
    """Positions of the trials whose networks may be averaged with the first one's."""
    groups = [soup_group(TrialConfig.model_validate(trial).model_dump(mode="json")) for trial in trials]
    return [index for index, group in enumerate(groups) if group == groups[0]]


def test_score(trial: dict[str, Any], *, checkpoint: str) -> dict[str, Any]:
    """Scores of a checkpoint on the test split, which nothing else reads; for an oracle the target's too."""
    config = TrialConfig.model_validate(trial)
    return _test_scores(config, lambda split: score_checkpoint(config, checkpoint=Path(checkpoint), split=split))


def _test_scores(config: TrialConfig, score: Callable[[str], Evaluation]) -> dict[str, Any]:
    found = score("test").as_dict()
    return found | {"oracle": score("target_test").as_dict()} if config.data.oracle else found


def probe_scores(trial: dict[str, Any], *, stages: bool, kinds: list[str]) -> dict[str, dict[str, Any]]:
    """Validation scores of the frozen-feature probe, ``linear_probe``; with ``stages`` also ``probe_stage1``….

    Those of other classifiers than logistic regression bear its name at the end, ``probe_stage1_knn``.
    """
    config = TrialConfig.model_validate(trial)
    if not stages:
        return {"linear_probe": linear_probe(config).as_dict()}
    features = frozen_features(config)
    return {
        _probe_name(stage, kind=kind): stage_probe(features, stage=stage, kind=kind).as_dict()
        for kind in kinds
        for stage in features.stages
    }


def _probe_name(stage: str, *, kind: str) -> str:
    if kind == "logreg":
        return "linear_probe" if stage == POOLED else f"probe_{stage}"
    return f"probe_{stage}_{kind}"


def arm_score(trial: dict[str, Any], *, recipe: str, folder: str) -> dict[str, dict[str, Any]]:
    """Train a fixed recipe, ``scratch``, ``bit_hyperrule`` or ``source_only``, to its end; scores of its best epoch.

    Every epoch is saved in ``folder``, so that a call that was cut off is gone on with.
    """
    config = TrialConfig.model_validate(trial)
    if recipe == "scratch":
        config = from_scratch(config)
    elif recipe == "source_only":
        config = source_only(config)
    else:
        facts = prepare([trial], check_device=False)
        config = bit_hyperrule(config, num_images=sum(facts["counts"]["train"].values()))
    place, metric = Path(folder), config.train.metric
    for epoch in fit(config, resume_from=resume_point(place, _newest_epoch(place))):
        epoch.save(epoch_folder(place, epoch.number))
        prune_checkpoints(place, newest=epoch.number, metric=metric)
    last = read_state(epoch_folder(place, _newest_epoch(place)))
    best = best_epoch({int(number): value for number, value in last["history"].items()}, metric=metric)
    results = read_state(epoch_folder(place, best or 0))["results"]
    measured = {name: value for name, value in results["metrics"].items() if not name.startswith("usage/")}
    return {recipe: results["evaluation"] | {"measured": measured, "epoch": best, "epochs": last["epoch"]}}


def run_step(settings: dict[str, Any], *, step: str, folder: str) -> dict[str, Any]:
    """Pre-train (``ssl``) or meta-train (``meta``) into ``folder``, going on where it stands; its last metrics."""
    metrics: dict[str, float] = {}
    if step == "ssl":
        for epoch in pretrain_epochs(PretrainConfig.model_validate(settings), folder=Path(folder)):
            metrics = epoch.metrics
    else:
        for report in meta_reports(MetaConfig.model_validate(settings), folder=Path(folder)):
            metrics = report.metrics
    return {"metrics": metrics}


def transferability(trial: dict[str, Any]) -> dict[str, float]:
    """LogME and H-score of the frozen pooled features on the training images."""
    features = frozen_features(TrialConfig.model_validate(trial))
    found, labels = features.of(POOLED, split="train"), features.labels["train"]
    return {"logme": logme(found, labels), "h_score": h_score(found, labels)}


def domain_picture(trial: dict[str, Any], *, checkpoint: str, path: str) -> None:
    """Write where the images of both domains lie before and after a training, as JSON; nothing where they have no place."""
    found = pictured(TrialConfig.model_validate(trial), checkpoint=Path(checkpoint))
    Path(path).unlink(missing_ok=True)
    if found is not None:
        with write_beside(Path(path)) as file:
            file.write(json.dumps(found).encode())


def _newest_epoch(folder: Path) -> int:
    return max((int(path.name.removeprefix("epoch_")) for path in folder.glob("epoch_*")), default=0)
