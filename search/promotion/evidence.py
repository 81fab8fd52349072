"""What a candidate and the champion make of test images, as the numbers that the gate judges."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.promotion.gate import Evidence
from search.space.sections import GateSection
from search.tracking.model_files import load, probabilities, size_mb
from trainable.config.renamed import with_new_names
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import ImagesChangedError
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS
from trainable.errors import UserError
from trainable.serving.classifier import DESCRIPTION
from trainable.serving.encoded import EncodedImage, encoded_images
from trainable.serving.package import IMAGES
from trainable.statistics.comparison import METRICS, compare, judge

PACKAGE = Path("artifacts/package")  # in a model's folder
LATENCY_CALLS = 15
TRAINED_ON = ("train", "val", "target", "target_val")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model's folder with what its package says of it; ``splits`` has by image id the split it was in.

    ``root`` is the folder from which the paths of its data count.
    """

    folder: Path
    model: Any
    description: Mapping[str, Any]
    splits: Mapping[int, str]
    root: Path

    @property
    def classes(self) -> list[str]:
        """Their names in order."""
        return list(self.description["classes"])

    @property
    def config(self) -> TrialConfig:
        """What it was trained as, its data where they are."""
        return rooted(self.description["config"], root=self.root)

    @property
    def tested_on(self) -> str:
        """The split that says how good it is: of an oracle's run that of the target, which it is for."""
        return "target_test" if self.config.data.oracle else "test"

    def knows(self, sample_id: int) -> bool:
        """Whether an image was trained on or chosen by."""
        return self.splits.get(sample_id) in TRAINED_ON


@dataclass(frozen=True)
class Measured:
    """What a candidate makes of its test images: probabilities N×K against labels N, in its classes' order."""

    images: list[EncodedImage]
    labels: NDArray[np.int64]
    predicted: NDArray[np.float64]


def rooted(config: Mapping[str, Any], *, root: Path) -> TrialConfig:
    """A stored configuration whose relative paths of data count from ``root``.

    Source and target are paths only where there is no ``data.path`` of whose domain column they would be values.
    """

    def placed(path: Any) -> Any:
        return str(root / path) if isinstance(path, str) and (root / path).exists() else path

    config = with_new_names(config)
    data = dict(config["data"])
    if data["path"]:
        data["path"] = placed(data["path"])
    elif data["format"] != "elpv":
        data |= {"target": placed(data["target"]), "source": [placed(one) for one in data["source"]]}
    return TrialConfig.model_validate({**config, "data": data})


def open_served(folder: Path, *, root: Path) -> Served:
    """A model whose files are in ``folder``."""
    package = folder / PACKAGE
    table = pq.read_table(package / IMAGES, columns=["sample_id", "split"]).to_pydict()
    description = json.loads((package / DESCRIPTION).read_text())
    splits = dict(zip(table["sample_id"], table["split"], strict=True))
    return Served(folder=folder, model=load(folder), description=description, splits=splits, root=root)


def measure(candidate: Served, *, images: list[EncodedImage]) -> Measured:
    """Its predictions, through the packaged model itself."""
    columns = {name: index for index, name in enumerate(candidate.classes)}
    labels = np.array([columns[image.label] for image in images])
    found = probabilities(candidate.model, [image.read_bytes() for image in images], classes=candidate.classes)
    return Measured(images, labels, found)


def gather(candidate: Served, measured: Measured, *, champion: Served | None, rule: GateSection) -> Evidence:
    """All that the gate asks."""
    own = judge(measured.predicted, labels=measured.labels, classes=candidate.classes, confidence=rule.confidence)
    constant = np.full(len(measured.labels), np.bincount(measured.labels).argmax())
    chance = float(METRICS[rule.metric](measured.labels, constant, num_classes=len(candidate.classes)))
    alone: dict[str, Any] = {
        "chance": chance,
        "latency_ms": latency_ms(candidate, measured.images),
        "size_mb": size_mb(candidate.folder),
    }
    if champion is None:
        return Evidence(test=own.as_dict(), **alone)
    old, no_old = _old(candidate, champion, rule=rule)
    facts: dict[str, Any] = {"has_champion": True, "old": old, "no_old": no_old}
    rows = [row for row, image in enumerate(measured.images) if not champion.knows(image.sample_id)]
    if len(rows) < 2:
        return Evidence(test=own.as_dict(), **alone, **facts, unpaired="it was trained on the candidate's test images")
    common = [measured.images[row] for row in rows]
    both = _Both(
        candidate=candidate,
        champion=champion,
        images=common,
        rule=rule,
        first=_chosen(measured.predicted[rows], classes=candidate.classes),
    )
    return Evidence(test=own.as_dict(), **alone, **facts, champion=both.second(), paired=both.paired())


@dataclass(frozen=True, kw_only=True)
class _Both:
    """A candidate, whose answers to the images are ``first``, and a champion, whose answer may be any class of either."""

    candidate: Served
    champion: Served
    images: Sequence[EncodedImage]
    rule: GateSection
    first: Sequence[str]

    @cached_property
    def classes(self) -> list[str]:
        return sorted({*self.candidate.classes, *self.champion.classes})

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        return self._indices([image.label for image in self.images])

    @cached_property
    def theirs(self) -> NDArray[np.float64]:
        return probabilities(self.champion.model, [one.read_bytes() for one in self.images], classes=self.classes)

    def second(self) -> dict[str, Any]:
        """The champion alone."""
        judged = judge(self.theirs, labels=self.labels, classes=self.classes, confidence=self.rule.confidence)
        return judged.as_dict()

    def paired(self) -> dict[str, Any]:
        """The candidate against the champion."""
        found = compare(
            self._indices(self.first),
            self.theirs.argmax(axis=1),
            labels=self.labels,
            num_classes=len(self.classes),
            metric=self.rule.metric,
            confidence=self.rule.confidence,
        )
        return found.as_dict()

    def _indices(self, names: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self.classes.index(name) for name in names])


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
    wanted = {sample_id for sample_id, split in champion.splits.items() if split == champion.tested_on}
    found = {**_images(champion, wanted=wanted), **_images(candidate, wanted=wanted)}
    known = {*candidate.classes, *champion.classes}
    images = [one for one in found.values() if one.label in known and not candidate.knows(one.sample_id)]
    if len(images) < 2:
        return None, f"{len(found)} of {len(wanted)} are still there, {len(images)} of them not trained on since"
    own = probabilities(candidate.model, [one.read_bytes() for one in images], classes=candidate.classes)
    first = _chosen(own, classes=candidate.classes)
    return _Both(candidate=candidate, champion=champion, images=images, rule=rule, first=first).paired(), ""


def _chosen(found: NDArray[np.float64], *, classes: Sequence[str]) -> list[str]:
    """The likeliest class of each image."""
    return [classes[index] for index in found.argmax(axis=1)]


def _images(served: Served, *, wanted: set[int]) -> dict[int, EncodedImage]:
    """Those of its data's images that are wanted; none where the data are gone."""
    try:
        splits = (*SPLITS, *TARGET_SPLITS) if served.config.data.oracle else SPLITS
        every = [image for split in splits for image in encoded_images(served.config, split=split)]
    except (UserError, ImagesChangedError):
        return {}
    return {image.sample_id: image for image in every if image.sample_id in wanted}
