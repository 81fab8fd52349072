"""The images as they are now, told apart by what the champion knows of them."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.promotion.packaged import PackagedModel
from search.space.paths import defaults, flatten
from search.space.values import Value
from trainable.config.trial import TrialConfig
from trainable.data.decode import BadImageError, decode
from trainable.data.fingerprint import id_of, read_or_empty
from trainable.data.inventory import Inventory
from trainable.data.packaged import PACKAGE
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample
from trainable.data.versions import Version as DataVersion
from trainable.model.backbone import input_spec
from trainable.serving.classifier import Classifier
from trainable.serving.encoded import EncodedImage
from trainable.serving.package import load_package

OUTSIDE_THE_TEST = ("train", "val")  # new images of these splits ask the champion; the test is for the gate
TARGET_OUTSIDE_THE_TEST = ("target", "target_val")
IMAGES_READ_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ChampionImages:
    """A champion's ``model`` with the images as they are now.

    ``good_images`` are by id those that can be decoded. Of the data versions, ``current`` has the images as they are now,
    ``trained`` as they were when the champion was trained; against ``reference`` images are new: that is ``trained``, or a later
    version that was searched without a new champion.
    """

    model: PackagedModel
    good_images: Mapping[int, EncodedImage]
    trained: DataVersion
    reference: DataVersion
    current: DataVersion

    @property
    def configuration(self) -> dict[str, Value]:
        """The champion's configuration by dotted path."""
        return defaults() | flatten(self.model.description["config"])

    @cached_property
    def classifier(self) -> Classifier:
        """The champion's network, which gives features too."""
        return load_package(self.model.folder / PACKAGE)

    @cached_property
    def ids_when_trained(self) -> set[int]:
        """The images that there were when the champion was trained."""
        return self.trained.ids(*SPLITS, *TARGET_SPLITS)

    @cached_property
    def new_images_outside_test(self) -> list[EncodedImage]:
        """Images that the champion knows nothing of, nor others of their groups, and that no test will ask about."""
        return self._unknown_images(self.current, splits=OUTSIDE_THE_TEST, without=self.reference)

    @cached_property
    def new_target_images(self) -> list[EncodedImage]:
        """Images to adapt to that the champion knows nothing of, and that no test will ask about."""
        return self._unknown_images(self.current, splits=TARGET_OUTSIDE_THE_TEST, without=self.reference)

    @cached_property
    def relabelled_images(self) -> list[EncodedImage]:
        """Images that are of another class now, outside the test but for its own, which say how good it is."""
        labels = {entry.sample_id: entry.label for entry in self.reference.present if entry.label is not None}
        return self._good_images(
            entry.sample_id
            for entry in self.current.present
            if labels.get(entry.sample_id, entry.label) != entry.label
            and (entry.split in OUTSIDE_THE_TEST or self.model.splits.get(entry.sample_id) == "test")
        )

    @cached_property
    def own_test_images(self) -> list[EncodedImage]:
        """What is still there of the champion's own test images, of the classes that they had then."""
        labels = {entry.sample_id: entry.label for entry in self.trained.present}
        return [
            replace(image, label=labels.get(image.sample_id) or image.label) for image in self.images_of_split("test")
        ]

    def held_out_images(self, *, target: bool = False) -> list[EncodedImage]:
        """Images of the reference that the champion was not trained on.

        These are its validation images and, outside the test, what came after it.
        """
        splits = TARGET_OUTSIDE_THE_TEST if target else OUTSIDE_THE_TEST
        return [
            *self.images_of_split("target_val" if target else "val"),
            *self._unknown_images(self.reference, splits=splits, without=self.trained),
        ]

    def images_of_split(self, split: str) -> list[EncodedImage]:
        """What is still there of one of the champion's own splits."""
        return self._good_images(sample_id for sample_id, of in self.model.splits.items() if of == split)

    def images_not_trained_on(self, ids: Iterable[int]) -> list[EncodedImage]:
        """What is there of these images, but for those that the champion was trained on."""
        return self._good_images(sample_id for sample_id in ids if not self.model.was_trained_on(sample_id))

    def predict(self, images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.int64]:
        """Give the index of the class that the champion gives each image."""
        indices = [np.zeros(0, np.int64)]
        for start in range(0, len(images), IMAGES_READ_AT_ONCE):
            batch = images[start : start + IMAGES_READ_AT_ONCE]
            indices.append(self.model.answer(batch, classes=classes).argmax(axis=1))
        return np.concatenate(indices)

    def _unknown_images(
        self, version: DataVersion, *, splits: Sequence[str], without: DataVersion
    ) -> list[EncodedImage]:
        """Images of these splits of a version but for another's and those of which the champion knows one of the group."""
        old = without.ids(*SPLITS, *TARGET_SPLITS) | self.ids_when_trained | self.model.splits.keys()
        known_groups = {
            entry.group
            for entry in self.current.entries
            if entry.group is not None and self.model.was_trained_on(entry.sample_id)
        }
        return self._good_images(
            entry.sample_id
            for entry in version.entries
            if entry.present
            and entry.split in splits
            and entry.sample_id not in old
            and entry.group not in known_groups
        )

    def _good_images(self, ids: Iterable[int]) -> list[EncodedImage]:
        """The images that are there and can be decoded: of the old ones the champion's package names only these."""
        return [
            self.good_images[sample_id]
            for sample_id in sorted(ids)
            if sample_id in self.good_images
            and (sample_id in self.model.splits or sample_id not in self.ids_when_trained)
        ]


def good_images(inventory: Inventory, *, bad: Iterable[int] = ()) -> dict[int, EncodedImage]:
    """The images by id, without those that are ``bad``; those to adapt to have no label."""
    left_out = set(bad)
    return {
        sample_id: EncodedImage(sample_id, sample.label or "", sample.read_bytes)
        for sample_id, sample in _samples_by_id(inventory).items()
        if sample_id not in left_out
    }


def find_bad_images(inventory: Inventory, *, among: Iterable[int], config: TrialConfig) -> dict[int, str]:
    """Find of these images, by id, those that cannot be decoded, with their names."""
    samples = _samples_by_id(inventory)
    chosen = {sample_id: samples[sample_id] for sample_id in sorted(set(among) & samples.keys())}
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    settings = {"side": spec.stored_side, "interpolation": spec.interpolation, **config.data.decoding}
    check = partial(_can_be_decoded, settings=settings)
    with ThreadPoolExecutor() as pool:
        good = list(pool.map(check, chosen.values()))
    return {
        sample_id: sample.name for (sample_id, sample), is_good in zip(chosen.items(), good, strict=True) if not is_good
    }


def _samples_by_id(inventory: Inventory) -> dict[int, Sample]:
    pairs = [*zip(inventory.source.every_sample, inventory.digests, strict=True)]
    return {id_of(digest): sample for sample, digest in reversed(pairs)}  # the labelled come first, and so stay


def _can_be_decoded(sample: Sample, *, settings: Mapping[str, Any]) -> bool:
    try:
        decode(read_or_empty(sample), **settings)
    except BadImageError:
        return False
    return True
