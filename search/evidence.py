"""What a candidate and the champion make of test images, as the numbers that the gate judges."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.policy import Evidence
from search.registry import load, probabilities, size_mb
from search.spec import GateSection
from trainable.comparison import compare, judge
from trainable.config import TrialConfig
from trainable.data.encoded import EncodedImage, encoded_images
from trainable.data.source import SPLITS
from trainable.errors import UserError
from trainable.serving.classifier import DESCRIPTION
from trainable.serving.package import IMAGES

PACKAGE = Path("artifacts/package")  # in a model's folder
LATENCY_CALLS = 15
TRAINED_ON = ("train", "val")


@dataclass(frozen=True)
class Served:
    """A model's folder with what its package says of it; ``splits`` has by image id the split it was in."""

    folder: Path
    model: Any
    description: Mapping[str, Any]
    splits: Mapping[int, str]

    @property
    def classes(self) -> list[str]:
        """Their names in order."""
        return list(self.description["classes"])

    @property
    def config(self) -> TrialConfig:
        """What it was trained as."""
        return TrialConfig.model_validate(self.description["config"])

    def knows(self, sample_id: int) -> bool:
        """Whether an image was trained on or chosen by."""
        return self.splits.get(sample_id) in TRAINED_ON


@dataclass(frozen=True)
class Measured:
    """What a candidate makes of its test images: probabilities N×K against labels N, in its classes' order."""

    images: list[EncodedImage]
    labels: NDArray[np.int64]
    predicted: NDArray[np.float64]


def open_served(folder: Path) -> Served:
    """A model whose files are in ``folder``."""
    package = folder / PACKAGE
    table = pq.read_table(package / IMAGES, columns=["sample_id", "split"]).to_pydict()
    description = json.loads((package / DESCRIPTION).read_text())
    return Served(folder, load(folder), description, dict(zip(table["sample_id"], table["split"], strict=True)))


def measure(candidate: Served, *, images: list[EncodedImage]) -> Measured:
    """Its predictions, through the packaged model itself."""
    columns = {name: index for index, name in enumerate(candidate.classes)}
    labels = np.array([columns[image.label] for image in images])
    found = probabilities(candidate.model, [image.read_bytes() for image in images], classes=candidate.classes)
    return Measured(images, labels, found)


def gather(candidate: Served, measured: Measured, *, champion: Served | None, rule: GateSection) -> Evidence:
    """All that the gate asks."""
    own = judge(measured.predicted, labels=measured.labels, classes=candidate.classes, confidence=rule.confidence)
    speed: dict[str, Any] = {"latency_ms": latency_ms(candidate, measured.images), "size_mb": size_mb(candidate.folder)}
    if champion is None:
        return Evidence(own.as_dict(), **speed)
    common = [row for row, image in enumerate(measured.images) if not champion.knows(image.sample_id)]
    old, no_old = _old(candidate, champion, rule=rule)
    facts: dict[str, Any] = {"has_champion": True, "old": old, "no_old": no_old}
    if len(common) < 2:
        return Evidence(own.as_dict(), **speed, **facts, unpaired="it was trained on the candidate's test images")
    images = [measured.images[row] for row in common]
    labels = measured.labels[common]
    theirs = probabilities(champion.model, [one.read_bytes() for one in images], classes=candidate.classes)
    judged = judge(theirs, labels=labels, classes=candidate.classes, confidence=rule.confidence)
    paired = compare(
        measured.predicted[common].argmax(axis=1),
        _chosen(theirs),
        labels=labels,
        num_classes=len(candidate.classes),
        metric=rule.metric,
        confidence=rule.confidence,
    )
    return Evidence(own.as_dict(), **speed, **facts, champion=judged.as_dict(), paired=paired.as_dict())


def latency_ms(served: Served, images: Sequence[EncodedImage]) -> float:
    """Median milliseconds for one image from its bytes to its class, of some calls after one to warm up."""
    one = [images[0].read_bytes()]
    seconds = []
    for _ in range(LATENCY_CALLS + 1):
        started = time.perf_counter()
        probabilities(served.model, one, classes=served.classes)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds[1:])


def _old(candidate: Served, champion: Served, *, rule: GateSection) -> tuple[dict[str, Any] | None, str]:
    """Both models on the champion's test images that are still to be had and that the candidate was not trained on."""
    if candidate.description["fingerprint"] == champion.description["fingerprint"]:
        return None, ""
    wanted = {sample_id for sample_id, split in champion.splits.items() if split == "test"}
    found = {**_images(champion, wanted=wanted), **_images(candidate, wanted=wanted)}
    images = [image for image in found.values() if not candidate.knows(image.sample_id)]
    known = set(candidate.classes) | set(champion.classes)
    images = [image for image in images if image.label in known]
    if len(images) < 2:
        return None, f"{len(found)} of {len(wanted)} are still there, {len(images)} of them not trained on since"
    classes = sorted(known)
    labels = np.array([classes.index(image.label) for image in images])
    encoded = [image.read_bytes() for image in images]
    first, second = (_chosen(probabilities(one.model, encoded, classes=classes)) for one in (candidate, champion))
    found_pair = compare(
        first, second, labels=labels, num_classes=len(classes), metric=rule.metric, confidence=rule.confidence
    )
    return found_pair.as_dict(), ""


def _images(served: Served, *, wanted: set[int]) -> dict[int, EncodedImage]:
    """Those of its data's images that are wanted; none where the data are gone."""
    try:
        every = [image for split in SPLITS for image in encoded_images(served.config, split=split)]
    except UserError:
        return {}
    return {image.sample_id: image for image in every if image.sample_id in wanted}


def _chosen(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """The likeliest class of each image; -1 where all that a model knows are other classes."""
    return np.where(probabilities.max(axis=1) > 0, probabilities.argmax(axis=1), -1)
