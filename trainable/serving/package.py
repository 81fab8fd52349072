"""Puts a trained network into a folder from which it can be served without this project."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from trainable.config.trial import TrialConfig
from trainable.data import decode as decode_module
from trainable.data.kept_splits import group_key
from trainable.data.pack import Pack
from trainable.data.packaged import IMAGES
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS
from trainable.json_text import to_json
from trainable.model import layers as layers_module
from trainable.model.backbone import serving_options
from trainable.model.norms import target_statistics
from trainable.serving import classifier as classifier_module
from trainable.serving.classifier import DESCRIPTION, WEIGHTS, Classifier
from trainable.serving.encoded import encoded_images
from trainable.statistics.conformal import Unsure, fit_unsure
from trainable.training.finishing import Finish, StepName, find_finish
from trainable.training.measure import Measurer
from trainable.training.setup import Setup
from trainable.training.trained import Trained, network_state

FORMAT = 1
CODE = {"classifier.py": classifier_module, "decode.py": decode_module, "layers.py": layers_module}
TOLERANCE = 1e-4  # of a probability: batches of another size have other last bits
IMAGES_COMPARED = 64


def package(
    config: TrialConfig,
    *,
    folder: Path,
    checkpoint: Path | None = None,
    soup: Path | None = None,
    finish: Finish | Sequence[StepName] = (),
    coverage: float | None = None,
) -> None:
    """Write the network of a ``checkpoint``, or the ``soup`` at a path, as the package ``folder``, whole or not at all.

    It is given the ``finish``, or of these steps those that help it on validation images, and for a ``coverage`` the
    probability from which a class is plausible, fitted to these images too.

    It holds the weights, model.json (classes, what the input is, how it was configured), which images, by hash alone, were of
    which class and in which split, and the code that serves it. Raises RuntimeError where what is served would not be what
    was trained, by validation images decoded and classified both ways.
    """
    setup, epoch = Trained(config=_comparable(config), checkpoint=checkpoint, soup=soup).open()
    measurer = Measurer(config=setup.config, inputs=setup.inputs)
    found = finish
    if not isinstance(found, Finish):
        found = find_finish(setup, measurer=measurer, steps=found, epoch=epoch)
    found.apply(setup)
    unsure = None if coverage is None else _fit_unsure(setup, measurer=measurer, epoch=epoch, coverage=coverage)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        written = Path(beside) / "package"
        _write(setup, description=_description(setup, config=config, finish=found, unsure=unsure), folder=written)
        _check_same(setup, epoch=epoch, folder=written)
        if folder.exists():
            shutil.rmtree(folder)
        written.rename(folder)


def digest(folder: Path) -> str:
    """32 hex digits of every file's name and content."""
    checksum = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        checksum.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return checksum.hexdigest()[:32]


def has_own_code(folder: Path) -> bool:
    """Whether the code in a package is that of this project, byte for byte."""
    files = {folder / name: Path(str(module.__file__)) for name, module in CODE.items()}
    return all(file.is_file() and file.read_bytes() == own.read_bytes() for file, own in files.items())


def load_package(folder: Path, *, device: str | None = None) -> Classifier:
    """The classifier of a package of this version of the project."""
    return Classifier(folder, decode=decode_module.decode, layers=layers_module, device=device)


def _comparable(config: TrialConfig) -> TrialConfig:
    """In full precision on the CPU: a GPU's short products depend on the size of a batch."""
    return config.model_copy(update={"train": config.train.model_copy(update={"amp": "off", "device": "cpu"})})


def _fit_unsure(setup: Setup, *, measurer: Measurer, epoch: int, coverage: float) -> Unsure:
    predicted = measurer.predict(setup.network, "val", epoch=epoch)
    return fit_unsure(predicted.probabilities, labels=predicted.labels, coverage=coverage)


def _write(setup: Setup, *, description: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    save_file(network_state(setup.network), folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(to_json(description, indent=1, sort_keys=True))
    pq.write_table(images_table(setup.pack), folder / IMAGES)
    for name, module in CODE.items():
        shutil.copyfile(str(module.__file__), folder / name)


def _description(setup: Setup, *, config: TrialConfig, finish: Finish, unsure: Unsure | None) -> dict[str, Any]:
    spec = setup.inputs.full.spec
    return {
        "format": FORMAT,
        "architecture": config.model.name,
        **serving_options(config.model, spec=spec, flexible=config.data.early_size is not None),
        "input": {
            "channels": len(spec.mean),
            "size": spec.size,
            "stored_side": spec.stored_side,
            "mean": spec.mean,
            "std": spec.std,
            "interpolation": spec.interpolation,
            **{name: value for name, value in config.data.decoding.items() if name != "channels"},
        },
        "classes": list(setup.pack.classes),
        "fingerprint": setup.pack.fingerprint,
        "counts": setup.pack.counts(),
        "config": config.model_dump(mode="json"),
        "finish": finish.as_dict(),
        **({} if unsure is None else {"unsure": unsure.as_dict()}),
    }


def images_table(pack: Pack) -> pa.Table:
    """Which image, by hash, was of which class and group, by hash too, and in which split; no name of a file."""
    splits = np.empty(len(pack), dtype=object)
    for split in (*SPLITS, *TARGET_SPLITS):
        splits[pack.indices(split)] = split
    labels = [None if label < 0 else pack.classes[label] for label in pack.labels]
    groups = [group_key(group) for group in pack.groups]
    columns = {"split": splits.tolist(), "label": pa.array(labels, pa.string()), "group": pa.array(groups, pa.string())}
    return pa.table({"sample_id": pa.array(pack.sample_ids), **columns})


def _check_same(setup: Setup, *, epoch: int, folder: Path) -> None:
    images = encoded_images(setup.config, split="val")[:IMAGES_COMPARED]
    served = load_package(folder, device="cpu").probabilities([image.read_bytes() for image in images])
    measurer = Measurer(config=setup.config, inputs=setup.inputs)
    with target_statistics(setup.network):
        predicted = measurer.predict(setup.network, "val", epoch=epoch, limit=IMAGES_COMPARED)
    trained = predicted.probabilities[: len(images)]
    gap = float(np.abs(served - trained).max())
    if not gap <= TOLERANCE:
        raise RuntimeError(f"the packaged model differs from the trained one by {gap:.2g} in a probability")
