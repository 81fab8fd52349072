"""What a student learns from its teachers: their probabilities of its training images beside the labels."""

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from blake3 import blake3
from safetensors.torch import load_file, save
from scipy.special import softmax
from torch import Tensor

from trainable.atomic import write_beside
from trainable.config.renamed import with_new_names
from trainable.config.trial import AdaptConfig, AugmentConfig, TrialConfig
from trainable.data.pack import Pack, cache_errors, cache_folder
from trainable.data.packaged import DESCRIPTION, IMAGES, WEIGHTS, find_package
from trainable.data.versions import read_version
from trainable.errors import UserError
from trainable.loader.batches import Rows, evaluation_batches
from trainable.loader.unlabelled import Unlabelled, open_beside
from trainable.model.light_adapters import as_served
from trainable.statistics.arrays import Double
from trainable.training.device import autocast
from trainable.training.evaluate import Predicted, predict
from trainable.training.finishing import read_finish
from trainable.training.measure import Measurer
from trainable.training.setup import Setup, set_up

logger = logging.getLogger(__name__)

VERSION = 1  # of the answers that are kept
# What an image becomes is the teacher's; which images there are, and in which split, is the student's.
OF_THE_TEACHER = ("image_size", "channels", "max_pixels", "bit_depth", "background")
LEARNT_FROM = {
    "val": ("train",),
    "test": ("train", "val"),
}  # splits of a teacher that must not be in one of the student


def soft_targets(setup: Setup) -> Tensor | None:
    """What a student's images are to be given, N×K by row of its pack, then of the unlabelled one; None where it has no teachers.

    Of an unlabelled image it is p, of a training image (1-w)·label + w·p, p the mean over the teachers of their probabilities
    p_k^(1/T), scaled to sum 1, at weight w and temperature T (Hinton et al. 2015, the student at temperature 1); others are 0.
    Raises UserError for a teacher that is none, knows other classes, or has learnt from images that the student is judged by.
    """
    config, pack = setup.config.distill, setup.pack
    if not config.teachers:
        return None
    rows, beside = pack.indices("train"), setup.inputs.full.unlabelled
    labels = np.eye(len(pack.classes))[pack.labels[rows]]
    targets = np.zeros((len(pack) + (0 if beside is None else len(beside.pack)), len(pack.classes)), dtype=np.float32)
    targets[rows] = (1 - config.weight) * labels + config.weight * _softened(setup, beside=None)
    if beside is not None:
        logger.warning(beside.line())
        targets[len(pack) + beside.rows] = _softened(setup, beside=beside)
    return torch.from_numpy(targets)


def _softened(student: Setup, *, beside: Unlabelled | None) -> Double:
    """What the teachers say of the training images, or of those ``beside`` them."""
    config = student.config.distill
    answers = [_answers(Path(teacher), student=student, beside=beside) for teacher in config.teachers]
    softened: Double = np.mean([softmax(logits / config.temperature, axis=1) for logits in answers], axis=0)
    return softened


def bare_config(config: TrialConfig) -> TrialConfig:
    """The configuration of a packaged network alone: nothing that was beside it in training, no weights to begin with."""
    return as_served(config).model_copy(
        update={"adapt": AdaptConfig(), "model": config.model.model_copy(update={"weights": "random"})}
    )


def _answers(folder: Path, *, student: Setup, beside: Unlabelled | None) -> Double:
    """Log-probabilities N×K of the student's training images, or of those ``beside`` them, kept in the cache of the data.

    The classes are in the student's order.
    """
    package = find_package(folder, field="distill.teachers")
    description = read_description(package)
    pack = student.pack
    if sorted(description["classes"]) != sorted(pack.classes):
        theirs, ours = (", ".join(classes) for classes in (description["classes"], pack.classes))
        raise UserError(f"distill.teachers: {folder} tells apart {theirs}, the images are of {ours}")
    _check_not_judged_by(package, pack=pack)
    asked = _Asked(pack, pack.indices("train")) if beside is None else _Asked(beside.pack, beside.rows)
    key = _key(package, asked=asked, student=student)
    file = cache_folder(student.config.data) / "teachers" / f"{key}.safetensors"
    answers = _kept(str(file))
    if answers is None:
        ask = _of_training if beside is None else _of_unlabelled
        answers = ask(package, description=description, student=student)
        with cache_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            with write_beside(file) as out:
                out.write(save({"answers": torch.from_numpy(answers)}))
    order = [description["classes"].index(name) for name in pack.classes]
    return answers[:, order]


def read_description(package: Path) -> Mapping[str, Any]:
    """What a packaged model says of itself. Raises UserError for a file that says nothing of the kind."""
    try:
        description = json.loads((package / DESCRIPTION).read_bytes())
        names = description["classes"]
        is_one = isinstance(names, list) and all(isinstance(name, str) for name in names)
        is_one = is_one and isinstance(description["config"], dict)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_one = False
    if not is_one:
        raise UserError(f"distill.teachers: {package / DESCRIPTION} does not describe a packaged model")
    return dict(description)


def _check_not_judged_by(package: Path, *, pack: Pack) -> None:
    """Refuse a teacher that knows the labels of images by which its student is chosen or tested."""
    entries = read_version(package / IMAGES).entries
    for split, theirs in LEARNT_FROM.items():
        learnt = {entry.sample_id for entry in entries if entry.split in theirs}
        common = learnt.intersection(pack.sample_ids[pack.indices(split)].tolist())
        if common:
            raise UserError(
                f"distill.teachers: {package} has learnt from {len(common)} {split} images of the student; train it on the same "
                "splits (data.split_seed, data.keep_splits)"
            )


class _Asked(NamedTuple):
    """The images that a teacher is asked of."""

    pack: Pack
    rows: Rows


def _key(package: Path, *, asked: _Asked, student: Setup) -> str:
    """Names everything that determines the answers."""
    digest = blake3(f"{VERSION} {asked.pack.fingerprint} {student.device.type} {student.config.train.amp}".encode())
    for name in (DESCRIPTION, WEIGHTS):
        digest.update((package / name).read_bytes())
    digest.update(asked.pack.sample_ids[asked.rows].tobytes())
    return digest.hexdigest(length=16)


@lru_cache(maxsize=4)
def _read(path: str, _changed_ns: int) -> Double:
    answers: Double = load_file(path)["answers"].numpy()
    return answers


def _kept(path: str) -> Double | None:
    try:
        return _read(path, Path(path).stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _of_training(package: Path, *, description: Mapping[str, Any], student: Setup) -> Double:
    """What the packaged network makes of the student's training images, as it looks at them."""
    teacher = _teacher(package, description=description, student=student)
    measurer = Measurer(config=teacher.config, inputs=teacher.inputs)
    return _logits(measurer.predict(teacher.network, "train", epoch=teacher.config.train.epochs))


def _of_unlabelled(package: Path, *, description: Mapping[str, Any], student: Setup) -> Double:
    """What the packaged network makes of the images beside the student's, as it looks at them."""
    teacher = _teacher(package, description=description, student=student)
    config, inputs, spec = teacher.config, teacher.inputs, teacher.inputs.full.spec
    asked = open_beside(config.model_copy(update={"distill": student.config.distill}), spec, pack=student.pack)
    assert asked is not None
    batches = evaluation_batches(asked.pack, "", rows=asked.rows, spec=spec, batch_size=inputs.batch_size)
    shown = ((inputs.normalised(batch.images, spec=spec), batch.labels) for batch in batches)
    return _logits(predict(teacher.network, batches=shown, autocast=autocast(teacher.device, config.train)))


def _teacher(package: Path, *, description: Mapping[str, Any], student: Setup) -> Setup:
    teacher = set_up(_config(description, student=student.config))
    teacher.network.load_state_dict(load_file(package / WEIGHTS))
    teacher.network.views = tuple(read_finish(description.get("finish", {})).views)
    return teacher


def _logits(predicted: Predicted) -> Double:
    logits: Double = np.log(np.maximum(predicted.probabilities, np.finfo(np.float64).tiny))
    return logits


def _config(description: Mapping[str, Any], *, student: TrialConfig) -> TrialConfig:
    """The teacher's network on the student's images and device."""
    document = with_new_names(description["config"])
    shown = {name: value for name, value in document["data"].items() if name in OF_THE_TEACHER}
    teacher = TrialConfig.model_validate({**document, "data": shown | {"path": "unused"}, "adapt": {}, "distill": {}})
    data = student.data.model_copy(update={**shown, "early_size": None, "early_epochs": 0, "rehearsal": None})
    return bare_config(teacher).model_copy(update={"data": data, "train": student.train, "augment": AugmentConfig()})
