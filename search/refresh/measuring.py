"""What the rungs of a refresh measure: drift, the champion's loss, that of its configuration trained again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.checkpoints import kept_checkpoint
from search.evidence import PACKAGE, Served, open_served
from search.ledger import Ledger
from search.paths import defaults, flatten
from search.refresh.ladder import Loss
from search.registry import ROOT, Registry, Version, probabilities
from search.spec import SearchSpec
from search.trials import Value, best_trial
from trainable.comparison import METRICS, loss_against
from trainable.config import TrialConfig
from trainable.data.decode import BadImageError, decode
from trainable.data.encoded import EncodedImage
from trainable.data.fingerprint import id_of, read_or_empty
from trainable.data.inventory import Inventory
from trainable.data.source import Sample
from trainable.data.versions import Version as DataVersion
from trainable.data.versions import read_version
from trainable.drift import drifted, feature_drift, prior_drift
from trainable.fitting import predict_checkpoint
from trainable.model.backbone import input_spec
from trainable.serving.package import IMAGES, load_package

HELD_OUT_OF_THE_TEST = ("train", "val")  # new images of these splits ask the champion; the test is for the gate
FEWEST_DRAWN = 2
FEWEST_ASKED = 10  # images below which a loss has no lower bound: chance alone may make any of it
MOST_COMPARED = 1000  # images a side, for drift
IMAGES_READ_AT_ONCE = 256


@dataclass(frozen=True)
class Champion:
    """The champion of a registered model with the images as they are now.

    ``images`` are the labelled ones by id; ``now`` is their version, ``before`` that which the champion was trained on.
    """

    version: Version
    served: Served
    images: Mapping[int, EncodedImage]
    before: DataVersion
    now: DataVersion

    @property
    def values(self) -> dict[str, Value]:
        """Its configuration by dotted path."""
        return defaults() | flatten(self.served.description["config"])

    @cached_property
    def old_ids(self) -> set[int]:
        """The images that there were when it was trained."""
        return {entry.sample_id for entry in self.before.present}

    @cached_property
    def new(self) -> list[EncodedImage]:
        """Images that the champion knows nothing of, nor others of their groups, and that no test will ask about."""
        seen = self.old_ids | self.served.splits.keys()
        known = {one.group for one in self.now.entries if one.group is not None and self.served.knows(one.sample_id)}
        return self._of(
            entry.sample_id
            for entry in self.now.present
            if entry.split in HELD_OUT_OF_THE_TEST and entry.sample_id not in seen and entry.group not in known
        )

    @cached_property
    def relabelled(self) -> list[EncodedImage]:
        """Images outside the test that are of another class now than when it was trained."""
        labels = {one.sample_id: one.label for one in self.before.present if one.label is not None}
        return self._of(
            entry.sample_id
            for entry in self.now.present
            if entry.split in HELD_OUT_OF_THE_TEST and labels.get(entry.sample_id, entry.label) != entry.label
        )

    def own(self, split: str) -> list[EncodedImage]:
        """What is still there of a split of its own."""
        return self._of(one for one, of in self.served.splits.items() if of == split)

    def frozen_test(self, version: DataVersion) -> list[EncodedImage]:
        """What is there of the test set of a data version, but for images that it was trained on."""
        return self._of(one for one in version.ids(self.served.tested_on) if not self.served.knows(one))

    def _of(self, ids: Iterable[int]) -> list[EncodedImage]:
        """Those that are there and can be decoded: of the old ones its package names only these."""
        return [
            self.images[one]
            for one in sorted(ids)
            if one in self.images and (one in self.served.splits or one not in self.old_ids)
        ]

    def predicted(self, images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.int64]:
        """The index of the class that it gives each image."""
        found = [np.zeros(0, np.int64)]
        for start in range(0, len(images), IMAGES_READ_AT_ONCE):
            read = [one.read_bytes() for one in images[start : start + IMAGES_READ_AT_ONCE]]
            found.append(probabilities(self.served.model, read, classes=classes).argmax(axis=1))
        return np.concatenate(found)


def open_champion(
    registry: Registry,
    version: Version,
    *,
    folder: Path,
    images: Mapping[int, EncodedImage],
    before: Path,
    now: DataVersion,
) -> Champion:
    """A registered version, its files put into ``folder``; ``before`` is the file of its data version, if there is one."""
    files = registry.download(version, folder=folder)
    known = read_version(before if before.is_file() else files / PACKAGE / IMAGES)
    return Champion(version, open_served(files, root=Path(version.tags.get(ROOT, "."))), images, known, now)


def good_images(inventory: Inventory, *, bad: Iterable[int] = ()) -> dict[int, EncodedImage]:
    """The labelled images by id, without those that are ``bad``."""
    left_out = set(bad)
    return {
        one: EncodedImage(one, sample.label, sample.read_bytes)
        for one, sample in _by_id(inventory).items()
        if sample.label is not None and one not in left_out
    }


def bad_images(inventory: Inventory, *, among: Iterable[int], config: TrialConfig) -> dict[int, str]:
    """Of these images, by id, those that cannot be decoded, with their names."""
    samples = _by_id(inventory)
    chosen = {one: samples[one] for one in sorted(set(among) & samples.keys())}
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    read = partial(_can_be_decoded, channels=config.data.channels, side=spec.stored_side, how=spec.interpolation)
    with ThreadPoolExecutor() as pool:
        good = list(pool.map(read, chosen.values()))
    return {one: sample.name for (one, sample), is_good in zip(chosen.items(), good, strict=True) if not is_good}


def drift_of(champion: Champion, *, spec: SearchSpec) -> dict[str, Any]:
    """Features of new images against those of the champion's validation images, shares of classes among all that are new.

    Features of images that a network was trained on differ from those of others without any drift.
    """
    old, new = (_drawn(images, seed=spec.search.seed) for images in (champion.own("val"), champion.new))
    if min(len(old), len(new)) < FEWEST_DRAWN:
        return {"reasons": [], "note": f"{len(new)} new images, {len(old)} of the champion's own: too few to tell"}
    classifier = load_package(champion.served.folder / PACKAGE)
    features = [classifier.features([one.read_bytes() for one in images]) for images in (old, new)]
    found = feature_drift(
        *features,
        old_labels=[one.label for one in old],
        new_labels=[one.label for one in new],
        seed=spec.search.seed,
    )
    counts = Counter(one.label for one in champion.new)
    prior = prior_drift(champion.before.counts, counts, seed=spec.search.seed)
    rule = spec.refresh
    return {
        "reasons": drifted(found, prior, p=rule.drift_p, effect=rule.drift_effect),
        "features": {name: one.as_dict() for name, one in found.items()},
        "classes": prior.as_dict(),
    }


def champion_loss(champion: Champion, *, spec: SearchSpec) -> dict[str, Any]:
    """The :class:`Loss` of the champion on new images, or why it cannot be asked."""
    new, own = [*champion.new, *champion.relabelled], champion.own("test")
    if not {one.label for one in new} & {one.label for one in own}:
        return {
            "unasked": f"{len(new)} new images outside the test, {len(own)} of its own test images, no class in common"
        }
    classes = sorted({one.label for one in (*new, *own)} | set(champion.served.classes))
    answers = [(champion.predicted(images, classes=classes), _labels(images, classes=classes)) for images in (new, own)]
    return _loss(*answers, num_classes=len(classes), spec=spec)


def refit_loss(
    champion: Champion, *, spec: SearchSpec, refit: SearchSpec, ledger: Ledger, folder: Path
) -> dict[str, Any]:
    """The same of a configuration trained again, on the validation images of all data."""
    metric = refit.search.metric
    trial = best_trial(ledger.trials(), metric=metric)
    if trial is None:
        return {"unasked": "; ".join(str(one.reason) for one in ledger.trials())}
    config = TrialConfig.model_validate(refit.trial_config(refit.space.decoded(trial.params)))
    found = predict_checkpoint(config, checkpoint=kept_checkpoint(folder, trial, metric=metric), split="val")
    own_classes = ledger.notes["data"]["classes"]
    own = champion.own("test")
    classes = sorted({*own_classes, *champion.served.classes, *(one.label for one in own)})
    places = np.array([classes.index(name) for name in own_classes])
    now = (places[found.probabilities.argmax(axis=1)], places[found.labels])
    before = (champion.predicted(own, classes=classes), _labels(own, classes=classes))
    return _loss(now, before, num_classes=len(classes), spec=spec)


def frozen_scores(
    champion: Champion, *, versions: Mapping[str, DataVersion], known: Mapping[str, Any], spec: SearchSpec
) -> dict[str, Any]:
    """The champion on the test set of each data version, by fingerprint: what of it is still there and it was not trained on.

    ``known`` are scores it has already.
    """
    sets = {name: champion.frozen_test(version) for name, version in versions.items() if name not in known}
    asked = list({one.sample_id: one for images in sets.values() for one in images}.values())
    classes = sorted({one.label for one in asked} | set(champion.served.classes))
    answers = dict(zip((one.sample_id for one in asked), champion.predicted(asked, classes=classes), strict=True))
    metric, found = spec.promote.metric, dict(known)
    for name, images in sets.items():
        predicted = np.array([answers[one.sample_id] for one in images])
        value = (
            METRICS[metric](_labels(images, classes=classes), predicted, num_classes=len(classes)) if images else None
        )
        found[name] = {
            "metric": metric,
            "value": None if value is None else float(value),
            "num_images": len(images),
            "of": len(versions[name].ids(champion.served.tested_on)),
        }
    return found


def loss_from(document: Mapping[str, Any] | None) -> Loss | None:
    """The loss that was measured; None where none was."""
    return None if document is None or "value" not in document else Loss(**document)


def _loss(
    now: tuple[NDArray[np.int64], NDArray[np.int64]],
    before: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    num_classes: int,
    spec: SearchSpec,
) -> dict[str, Any]:
    rule = spec.promote
    if not len(np.intersect1d(now[1], before[1])):
        return {"unasked": "no class in common with the champion's own test images"}
    found = loss_against(now, before, num_classes=num_classes, metric=rule.metric, confidence=rule.confidence)
    low = found.lost.low if found.num_images >= FEWEST_ASKED else -1.0
    return asdict(Loss(found.value, found.level, low, found.num_images))


def _labels(images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.int64]:
    return np.array([classes.index(one.label) for one in images], dtype=np.int64)


def _drawn(images: Sequence[EncodedImage], *, seed: int) -> list[EncodedImage]:
    """At most MOST_COMPARED of them, in their order."""
    rows = np.random.default_rng(seed).permutation(len(images))[:MOST_COMPARED]
    return [images[row] for row in np.sort(rows)]


def _by_id(inventory: Inventory) -> dict[int, Sample]:
    pairs = zip(inventory.source.every_sample, inventory.digests, strict=True)
    return {id_of(digest): sample for sample, digest in pairs}


def _can_be_decoded(sample: Sample, *, channels: int, side: int, how: str) -> bool:
    try:
        decode(read_or_empty(sample), channels=channels, side=side, interpolation=how)
    except BadImageError:
        return False
    return True
