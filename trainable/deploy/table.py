"""The rows of an export's table: a network in every form that is wanted, written and measured."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainable.deploy import int8, onnx, pt2, tensorrt
from trainable.deploy.deployed import Deployed, describe
from trainable.deploy.pruning import count, removed
from trainable.deploy.variant import BATCH, Examples, Logits, Predict, Variant, difference
from trainable.errors import UserError
from trainable.loader.batches import evaluation_batches
from trainable.model.network import Network
from trainable.training.inputs import Images

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


class Form(NamedTuple):
    """What a row is measured of: a network in torch, or a file of ``size_bytes``."""

    format: str
    precision: Literal["fp32", "int8"]
    predict: Predict
    size_bytes: int
    file: str | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """What all rows of one export share: files go to ``folder``; each network in every format of ``to``, then in 8 bits."""

    folder: Path
    images: Images
    examples: Examples
    to: tuple[str, ...]
    int8: bool

    def rows(self, network: Network, *, of: Network, note: str) -> Iterator[Variant]:
        """Variants of a network that is ``of`` itself or a pruned copy, the network in torch first.

        Raises UserError where a file in float32 gives other logits than the network.
        """
        deployed = Deployed(network, spec=self.images.spec)
        expected = self.examples.logits(_in_torch(deployed))
        reference = self.examples.logits(_in_torch(Deployed(of, spec=self.images.spec)))
        for form in self._forms(deployed, stem="model" if network is of else "model.pruned", note=note):
            logits = self.examples.logits(form.predict)
            distance = difference(logits, expected)
            if form.precision == "fp32":
                _check(distance, form=form.format)
            yield Variant(
                format=form.format,
                precision=form.precision,
                pruned=removed(network, of=of),
                file=form.file,
                parameters=count(network),
                size_mb=form.size_bytes / 1e6,
                **self.examples.scores(logits),
                agreement=float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
                max_difference=distance,
                **self.examples.latencies(form.predict),
                note=form.note,
            )

    def _forms(self, deployed: Deployed, *, stem: str, note: str) -> Iterator[Form]:
        state = deployed.network.state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state)
        yield Form("torch", "fp32", _in_torch(deployed), size, None, note)
        description = describe(self.images.spec, classes=self.images.pack.classes)
        for name in self.to:
            path = self.folder / f"{stem}.{FORMATS[name].suffix}"
            FORMATS[name].write(deployed, path=path, description=description)
            yield _file(path, name=name, precision="fp32", note="")
        if self.int8:
            scheme = int8.choose(deployed.network)
            path = self.folder / f"{stem}.int8.{FORMATS[scheme.format].suffix}"
            int8.write(
                deployed,
                scheme=scheme,
                path=path,
                plain=self.folder / f"{stem}.onnx",
                calibration=self._calibration(),
                description=description,
            )
            yield _file(path, name=scheme.format, precision="int8", note=scheme.reason)

    def _calibration(self) -> list[Tensor]:
        """Training images as evaluation sees them, in the pack's order, which has nothing to do with what they show."""
        batches = evaluation_batches(self.images.pack, "train", spec=self.images.spec, batch_size=BATCH)
        return [batch.images for batch in itertools.islice(batches, CALIBRATION_IMAGES // BATCH)]


def read_examples(images: Images, *, split: str) -> Examples:
    """All images of a split."""
    batches = list(evaluation_batches(images.pack, split, spec=images.spec, batch_size=BATCH))
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    return Examples([batch.images for batch in batches], labels, images.pack.classes)


def _in_torch(deployed: Deployed) -> Predict:
    def predict(images: Tensor) -> Logits:
        with torch.inference_mode():
            logits: Logits = deployed(images)[0].numpy()
        return logits

    return predict


def _file(path: Path, *, name: str, precision: Literal["fp32", "int8"], note: str) -> Form:
    return Form(name, precision, FORMATS[name].open_file(path), path.stat().st_size, path.name, note)


def _check(distance: float, *, form: str) -> None:
    if not distance <= LARGEST_DIFFERENCE:
        raise UserError(
            f"--to {form}: the file's logits differ from the network's by {distance:.2g} of the largest, over "
            f"{LARGEST_DIFFERENCE:g}; nothing was written"
        )
