"""A packaged model as it is served: its files, what its package says of it, its answers to images."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from search.tracking.model_files import load, probabilities
from trainable.config.renamed import with_new_names
from trainable.config.trial import TrialConfig
from trainable.data.packaged import DESCRIPTION, IMAGES, PACKAGE
from trainable.data.readers.arrow_files import load_listed
from trainable.serving.encoded import EncodedImage

SPLITS_OF_IMAGES = pa.schema({"sample_id": pa.uint64(), "split": pa.string()})
LATENCY_CALLS = 15
TRAINED_ON = ("train", "val", "target", "target_val")


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
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
        """The names of its classes in order."""
        return list(self.description["classes"])

    @property
    def config(self) -> TrialConfig:
        """The configuration that it was trained with, its data where they are."""
        return config_with_data_below(self.description["config"], root=self.root)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the images that it was trained on."""
        return str(self.description["fingerprint"])

    @property
    def test_split(self) -> str:
        """The split that says how good it is: of an oracle's run that of the target, which it is for."""
        return "target_test" if self.config.data.oracle else "test"

    def was_trained_on(self, sample_id: int) -> bool:
        """Whether an image was trained on or chosen by."""
        return self.splits.get(sample_id) in TRAINED_ON

    def answer(self, images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities N×K of the images, the columns in the order of ``classes``; 0 for a class that it does not know."""
        return probabilities(self.model, [image.read_bytes() for image in images], classes=classes)


def open_packaged(folder: Path, *, root: Path) -> PackagedModel:
    """Load the model whose files are in ``folder``."""
    package = folder / PACKAGE
    table = load_listed(package / IMAGES, schema=SPLITS_OF_IMAGES, field="packaged model").to_pydict()
    description = json.loads((package / DESCRIPTION).read_text())
    rows = sorted(zip(table["sample_id"], table["split"], strict=True), key=lambda row: row[1] in TRAINED_ON)
    splits = dict(rows)  # an image that is in several was trained on
    return PackagedModel(folder=folder, model=load(folder), description=description, splits=splits, root=root)


def config_with_data_below(config: Mapping[str, Any], *, root: Path) -> TrialConfig:
    """Read a stored configuration whose relative paths of data count from ``root``.

    Source and target are paths only where there is no ``data.path`` of whose domain column they would be values.
    """

    def locate(path: Any) -> Any:
        return str(root / path) if isinstance(path, str) and (root / path).exists() else path

    config = with_new_names(config)
    data = dict(config["data"])
    if data["path"]:
        data |= {name: locate(data.get(name)) for name in ("path", "images")}
    elif data["format"] != "elpv":
        data |= {"target": locate(data["target"]), "source": [locate(path) for path in data["source"]]}
    return TrialConfig.model_validate({**config, "data": data})


def latency_ms(model: PackagedModel, image: EncodedImage) -> float:
    """Median milliseconds for one image from its bytes to its class, of some calls after one to warm up."""
    content = [image.read_bytes()]
    seconds = []
    for _ in range(LATENCY_CALLS + 1):
        started = time.perf_counter()
        probabilities(model.model, content, classes=model.classes)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds[1:])
