"""From a trained network to files that run without this project, and the table of what each gives."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainable.config import AdaptConfig, TrialConfig
from trainable.data.batches import evaluation_batches
from trainable.data.writing import write_beside
from trainable.deploy import int8, onnx, pruning, pt2, tensorrt
from trainable.deploy.deployed import Deployed, describe
from trainable.deploy.pruning import count, prune, removed
from trainable.deploy.recovery import Recovery, recover
from trainable.deploy.variant import BATCH, Examples, Logits, Predict, Variant, difference, one_thread
from trainable.errors import UserError, nearest
from trainable.inputs import Images, open_images
from trainable.model.network import Network, create_network

TABLE = "variants.json"
LARGEST_DIFFERENCE = 1e-4
CALIBRATION_IMAGES = 256


class Format(NamedTuple):
    """How a kind of file is asked for, written and run."""

    suffix: str
    require: Callable[[], None]
    write: Callable[..., None]
    open_file: Callable[[Path], Predict]


FORMATS: dict[str, Format] = {
    "onnx": Format("onnx", onnx.require, onnx.write, onnx.open_file),
    "pt2": Format("pt2", pt2.require, pt2.write, pt2.open_file),
    "tensorrt": Format("engine", tensorrt.require, tensorrt.write, tensorrt.open_file),
}


@dataclass(frozen=True)
class Wanted:
    """What to export: files of these formats; with ``int8`` one in 8 bits too; with ``prune``, the share of the parameters
    to remove, all of it for a pruned network as well, trained again as ``recovery`` says. Judged on ``split``.

    Raises UserError for an unknown format and a share that is not between 0 and 1.
    """

    to: tuple[str, ...] = ("onnx",)
    int8: bool = False
    prune: float | None = None
    recovery: Recovery = field(default_factory=Recovery)
    split: str = "val"

    def __post_init__(self) -> None:
        for name in self.to:
            if name not in FORMATS:
                raise UserError(
                    f"--to: unknown format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}"
                )
        if self.prune is not None and not 0 < self.prune < 1:
            raise UserError(f"--prune: {self.prune} is not a share of the parameters between 0 and 1, such as 0.3")
        if self.recovery.epochs < 1:
            raise UserError(f"--recovery-epochs: {self.recovery.epochs} is below 1")


def export_weights_file(
    config: dict[str, Any], *, weights: str, classes: list[str], folder: str, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """:func:`export` from plain values to plain values, for another process.

    ``weights`` is a safetensors file of the whole network of ``config``, ``options`` are the fields of :class:`Wanted`.
    """
    trial = TrialConfig.model_validate(config)
    recovery = Recovery(**options.get("recovery", {}))
    wanted = Wanted(**{**options, "to": tuple(options["to"]), "recovery": recovery})
    images = open_images(trial, size=trial.data.image_size)
    if images.pack.classes != tuple(classes):
        raise UserError(
            f"data.path: holds the classes {', '.join(images.pack.classes)}, the model {', '.join(classes)}"
        )
    network = load_network(trial, weights=Path(weights), images=images)
    return [variant.as_dict() for variant in export(network, config=trial, wanted=wanted, folder=Path(folder))]


def load_network(config: TrialConfig, *, weights: Path, images: Images) -> Network:
    """The network of a trial with the weights of a file, without what was beside it in training."""
    bare = config.model_copy(
        update={"adapt": AdaptConfig(), "model": config.model.model_copy(update={"weights": "random"})}
    )
    network = create_network(bare, spec=images.spec, num_classes=len(images.pack.classes))
    network.load_state_dict(load_file(weights))
    return network


def export(network: Network, *, config: TrialConfig, wanted: Wanted, folder: Path) -> list[Variant]:
    """Write the files that are ``wanted``, and the table of them as JSON; gives the table, the network in torch first.

    The network is taken as it is, in eval mode; ``config`` says where its images are. Raises UserError for missing libraries,
    for a network that cannot be pruned, and where a file in float32 would give other logits than the network by more than
    1e-4 (see :class:`Variant`).
    """
    _require(network, config=config, wanted=wanted)
    images = open_images(config, size=config.data.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside, one_thread():
        variants = list(_variants(network, config=config, wanted=wanted, images=images, folder=Path(beside)))
        for variant in variants:
            if variant.file is not None:
                (Path(beside) / variant.file).replace(folder / variant.file)
    with write_beside(folder / TABLE) as file:
        file.write(json.dumps([variant.as_dict() for variant in variants], indent=1).encode())
    return variants


def _require(network: Network, *, config: TrialConfig, wanted: Wanted) -> None:
    """Everything that could be missing, before the work begins."""
    for name in wanted.to:
        FORMATS[name].require()
    if wanted.int8:
        int8.require(int8.choose(network))
    if wanted.prune is not None:
        pruning.require()
        pruning.check_prunable(network, name=config.model.name)


def _variants(
    network: Network, *, config: TrialConfig, wanted: Wanted, images: Images, folder: Path
) -> Iterator[Variant]:
    examples = _examples(images, split=wanted.split)
    network = network.cpu().eval()
    reference = examples.logits(_in_torch(Deployed(network, spec=images.spec)))
    export = _Export(wanted, images, examples, reference, folder)
    yield from export.rows(network, pruned=0.0, note="")
    if wanted.prune is None:
        return
    smaller = prune(network, share=wanted.prune, spec=images.spec, name=config.model.name)
    share = removed(smaller, of=network)
    smaller = recover(smaller, config=config, recovery=wanted.recovery)
    note = f"trained again for {wanted.recovery.epochs} epochs at rate {wanted.recovery.lr:g}"
    yield from export.rows(smaller, pruned=share, note=note)


def _examples(images: Images, *, split: str) -> Examples:
    batches = list(evaluation_batches(images.pack, split, spec=images.spec, batch_size=BATCH))
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    return Examples([batch.images for batch in batches], labels, images.pack.classes)


@dataclass(frozen=True)
class _Export:
    """What every row of one export shares; ``reference`` are the logits that all classes are compared with."""

    wanted: Wanted
    images: Images
    examples: Examples
    reference: Logits
    folder: Path

    def rows(self, network: Network, *, pruned: float, note: str) -> Iterator[Variant]:
        """The network in torch, its file of each format, its file in 8 bits."""
        deployed = Deployed(network, spec=self.images.spec)
        predict = _in_torch(deployed)
        measure = partial(self._measured, parameters=count(network), pruned=pruned, own=self.examples.logits(predict))
        size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
        yield measure("torch", predict=predict, size=size, note=note)
        stem = "model.pruned" if pruned else "model"
        description = describe(self.images.spec, classes=self.images.pack.classes)
        for name in self.wanted.to:
            path = self.folder / f"{stem}.{FORMATS[name].suffix}"
            FORMATS[name].write(deployed, path=path, description=description)
            yield _checked(
                measure(name, predict=FORMATS[name].open_file(path), size=path.stat().st_size, file=path.name)
            )
        if self.wanted.int8:
            scheme = int8.choose(network)
            path = self.folder / f"{stem}.int8.{FORMATS[scheme.format].suffix}"
            int8.write(
                deployed,
                scheme=scheme,
                path=path,
                plain=self.folder / f"{stem}.onnx",
                calibration=self._calibration(),
                description=description,
            )
            predict = FORMATS[scheme.format].open_file(path)
            size = path.stat().st_size
            yield measure(
                scheme.format, predict=predict, size=size, file=path.name, precision="int8", note=scheme.reason
            )

    def _measured(
        self,
        form: str,
        *,
        predict: Predict,
        size: int,
        parameters: int,
        pruned: float,
        own: Logits,
        file: str | None = None,
        precision: Literal["fp32", "int8"] = "fp32",
        note: str = "",
    ) -> Variant:
        logits = self.examples.logits(predict)
        return Variant(
            format=form,
            precision=precision,
            pruned=pruned,
            file=file,
            parameters=parameters,
            size_mb=size / 1e6,
            **self.examples.scores(logits),
            agreement=float((logits.argmax(axis=1) == self.reference.argmax(axis=1)).mean()),
            max_difference=difference(logits, own),
            **self.examples.latencies(predict),
            note=note,
        )

    def _calibration(self) -> list[Tensor]:
        """Training images as evaluation sees them, in the pack's order, which has nothing to do with what they show."""
        batches = evaluation_batches(self.images.pack, "train", spec=self.images.spec, batch_size=BATCH)
        return [batch.images for batch in itertools.islice(batches, CALIBRATION_IMAGES // BATCH)]


def _in_torch(deployed: Deployed) -> Predict:
    def predict(images: Tensor) -> Logits:
        with torch.inference_mode():
            logits: Logits = deployed(images)[0].numpy()
        return logits

    return predict


def _checked(variant: Variant) -> Variant:
    """A row of a file that must give what the network gives."""
    if not variant.max_difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"--to {variant.format}: the file's logits differ from the network's by {variant.max_difference:.2g} of the largest, "
            f"over {LARGEST_DIFFERENCE:g}; nothing was written"
        )
    return variant
