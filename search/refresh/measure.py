"""What the rungs of a refresh measure: drift, the champion's loss, that of its configuration trained again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.ledger.files import kept_checkpoint
from search.ledger.ledger import Ledger
from search.ledger.trials import best_trial
from search.promotion.packaged import PACKAGE, PackagedModel, open_packaged
from search.refresh.decision import Loss
from search.space.paths import defaults, flatten
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tracking.model_files import probabilities
from search.tracking.registry import ROOT, ModelVersion, Registry
from trainable.config.trial import TrialConfig
from trainable.data.decode import BadImageError, decode
from trainable.data.fingerprint import id_of, read_or_empty
from trainable.data.image_guard import held_to
from trainable.data.inventory import Inventory
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample
from trainable.data.versions import Version as DataVersion
from trainable.data.versions import read_version
from trainable.model.backbone import input_spec
from trainable.serving.classifier import Classifier
from trainable.serving.encoded import EncodedImage
from trainable.serving.package import IMAGES, load_package
from trainable.statistics.comparison import METRICS, loss_against
from trainable.statistics.drift import ALL, SAME, Drift, drifted, feature_drift, prior_drift
from trainable.training.fit import predict_checkpoint

OUTSIDE_THE_TEST = ("train", "val")  # new images of these splits ask the champion; the test is for the gate
TARGET_OUTSIDE_THE_TEST = ("target", "target_val")
FEWEST_DRAWN = 2
FEWEST_ASKED = 10  # images on either side below which a loss has no lower bound: chance alone may make any of it
MOST_COMPARED = 1000  # images a side, for drift
IMAGES_READ_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The champion of a registered model with the images as they are now.

    ``images`` are the good ones by id; ``now`` is their version, ``before`` that which the champion was trained on, ``reference``
    that against which images are new: the same, or a later one that was searched without a new champion.
    """

    version: ModelVersion
    served: PackagedModel
    images: Mapping[int, EncodedImage]
    before: DataVersion
    reference: DataVersion
    now: DataVersion

    @property
    def values(self) -> dict[str, Value]:
        """Its configuration by dotted path."""
        return defaults() | flatten(self.served.description["config"])

    @cached_property
    def classifier(self) -> Classifier:
        """Its network, which gives features too."""
        return load_package(self.served.folder / PACKAGE)

    @cached_property
    def old_ids(self) -> set[int]:
        """The images that there were when it was trained."""
        return self.before.ids(*SPLITS, *TARGET_SPLITS)

    @cached_property
    def new(self) -> list[EncodedImage]:
        """Images that the champion knows nothing of, nor others of their groups, and that no test will ask about."""
        return self._unknown(self.now, splits=OUTSIDE_THE_TEST, but=self.reference)

    @cached_property
    def new_target(self) -> list[EncodedImage]:
        """The same of images to adapt to."""
        return self._unknown(self.now, splits=TARGET_OUTSIDE_THE_TEST, but=self.reference)

    @cached_property
    def relabelled(self) -> list[EncodedImage]:
        """Images that are of another class now, outside the test but for its own, which say how good it is."""
        labels = {one.sample_id: one.label for one in self.reference.present if one.label is not None}
        return self._of(
            entry.sample_id
            for entry in self.now.present
            if labels.get(entry.sample_id, entry.label) != entry.label
            and (entry.split in OUTSIDE_THE_TEST or self.served.splits.get(entry.sample_id) == "test")
        )

    @cached_property
    def tested(self) -> list[EncodedImage]:
        """What is still there of its own test images, of the classes that they had then."""
        labels = {one.sample_id: one.label for one in self.before.present}
        return [replace(one, label=labels.get(one.sample_id) or one.label) for one in self.own("test")]

    def held_out(self, *, target: bool = False) -> list[EncodedImage]:
        """Images of the reference that it was not trained on: its validation images and, outside the test, what came after it."""
        splits = TARGET_OUTSIDE_THE_TEST if target else OUTSIDE_THE_TEST
        return [
            *self.own("target_val" if target else "val"),
            *self._unknown(self.reference, splits=splits, but=self.before),
        ]

    def own(self, split: str) -> list[EncodedImage]:
        """What is still there of a split of its own."""
        return self._of(one for one, of in self.served.splits.items() if of == split)

    def _unknown(self, version: DataVersion, *, splits: Sequence[str], but: DataVersion) -> list[EncodedImage]:
        """Images of these splits of a version that are not in another, nor known to the champion, nor others of their groups."""
        seen = but.ids(*SPLITS, *TARGET_SPLITS) | self.old_ids | self.served.splits.keys()
        known = {
            one.group for one in self.now.entries if one.group is not None and self.served.was_trained_on(one.sample_id)
        }
        return self._of(
            entry.sample_id
            for entry in version.entries
            if entry.present and entry.split in splits and entry.sample_id not in seen and entry.group not in known
        )

    def frozen_test(self, ids: Iterable[int]) -> list[EncodedImage]:
        """What is there of the test set of a data version, but for images that it was trained on."""
        return self._of(one for one in ids if not self.served.was_trained_on(one))

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
    version: ModelVersion,
    *,
    folder: Path,
    images: Mapping[int, EncodedImage],
    before: Path,
    tried: DataVersion | None,
    now: DataVersion,
) -> Champion:
    """A registered version, its files put into ``folder``.

    ``before`` is the file of its data version, if there is one, ``tried`` the version that was searched without a new champion.
    """
    files = registry.download(version, folder=folder)
    known = read_version(before if before.is_file() else files / PACKAGE / IMAGES)
    served = open_packaged(files, root=Path(version.tags.get(ROOT, ".")))
    return Champion(version=version, served=served, images=images, before=known, reference=tried or known, now=now)


def good_images(inventory: Inventory, *, bad: Iterable[int] = ()) -> dict[int, EncodedImage]:
    """The images by id, without those that are ``bad``; those to adapt to have no label."""
    left_out = set(bad)
    return {
        one: EncodedImage(one, sample.label or "", sample.read_bytes)
        for one, sample in _by_id(inventory).items()
        if one not in left_out
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
    """Features of new images against those of :meth:`Champion.held_out`, shares of classes among all that are new.

    Features of images that a network was trained on differ from those of others without any drift. ``note`` says what could
    not be compared.
    """
    rule, seed = spec.refresh, spec.search.seed
    found, note = _drift(champion, champion.held_out(), champion.new, seed=seed)
    counts = Counter(one.label for one in champion.new)
    prior = prior_drift(champion.reference.counts, counts, seed=seed)
    reasons = drifted(found, prior, p=rule.drift_p, effect=rule.drift_effect)
    measured = {"features": {name: one.as_dict() for name, one in found.items()}, "classes": prior.as_dict()}
    if champion.new_target:
        found, of_target = _drift(champion, champion.held_out(target=True), champion.new_target, seed=seed)
        note = of_target or (note if champion.new else "")
        whole = {name: one for name, one in found.items() if name == ALL}
        reasons += drifted(whole, SAME, p=rule.drift_p, effect=rule.drift_effect, whole="images to adapt to")
        measured["target"] = {name: one.as_dict() for name, one in whole.items()}
    return {"reasons": reasons, "note": note, **measured}


def _drift(
    champion: Champion, old: Sequence[EncodedImage], new: Sequence[EncodedImage], *, seed: int
) -> tuple[dict[str, Drift], str]:
    """By what the features of two samples differ; nothing of too few, and how many there are."""
    if min(len(old), len(new)) < FEWEST_DRAWN:
        return {}, f"{len(new)} new images outside the test, {len(old)} to compare them with"
    samples = [_drawn(images, seed=seed) for images in (old, new)]
    features = [champion.classifier.features([one.read_bytes() for one in images]) for images in samples]
    labels = [[one.label for one in images] for images in samples]
    return feature_drift(*features, old_labels=labels[0], new_labels=labels[1], seed=seed), ""


def champion_loss(champion: Champion, *, spec: SearchSpec) -> dict[str, Any]:
    """The :class:`Loss` of the champion on new images, or why it cannot be asked."""
    new, own = [*champion.new, *champion.relabelled], champion.tested
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
    config = TrialConfig.model_validate(refit.config_of(trial))
    with held_to(ledger.notes.data.fingerprints):
        found = predict_checkpoint(config, checkpoint=kept_checkpoint(folder, trial, metric=metric), split="val")
    own_classes = list(ledger.notes.data.classes)
    own = champion.tested
    classes = sorted({*own_classes, *champion.served.classes, *(one.label for one in own)})
    places = np.array([classes.index(name) for name in own_classes])
    now = (places[found.probabilities.argmax(axis=1)], places[found.labels])
    before = (champion.predicted(own, classes=classes), _labels(own, classes=classes))
    return _loss(now, before, num_classes=len(classes), spec=spec)


def frozen_scores(champion: Champion, *, tests: Mapping[str, set[int]], spec: SearchSpec) -> dict[str, Any]:
    """The champion on the test set, by ids, of each data version: what of it is still there and it was not trained on."""
    sets = {name: champion.frozen_test(ids) for name, ids in tests.items()}
    asked = list({one.sample_id: one for images in sets.values() for one in images}.values())
    classes = sorted({one.label for one in asked} | set(champion.served.classes))
    answers = dict(zip((one.sample_id for one in asked), champion.predicted(asked, classes=classes), strict=True))
    metric, found = spec.promote.metric, {}
    for name, images in sets.items():
        predicted = np.array([answers[one.sample_id] for one in images])
        value = (
            METRICS[metric](_labels(images, classes=classes), predicted, num_classes=len(classes)) if images else None
        )
        found[name] = {
            "metric": metric,
            "value": None if value is None else float(value),
            "num_images": len(images),
            "of": len(tests[name]),
        }
    return found


def loss_from(document: Mapping[str, Any]) -> Loss | None:
    """The loss that was measured; None where none was."""
    return Loss(**document) if "value" in document else None


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
    fewest = min(found.num_images, int(np.isin(before[1], now[1]).sum()))
    low = found.lost.low if fewest >= FEWEST_ASKED else None
    return asdict(Loss(value=found.value, level=found.level, low=low, num_images=found.num_images))


def _labels(images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.int64]:
    return np.array([classes.index(one.label) for one in images], dtype=np.int64)


def _drawn(images: Sequence[EncodedImage], *, seed: int) -> list[EncodedImage]:
    """At most MOST_COMPARED of them, in their order."""
    rows = np.random.default_rng(seed).permutation(len(images))[:MOST_COMPARED]
    return [images[row] for row in np.sort(rows)]


def _by_id(inventory: Inventory) -> dict[int, Sample]:
    pairs = [*zip(inventory.source.every_sample, inventory.digests, strict=True)]
    return {id_of(digest): sample for sample, digest in reversed(pairs)}  # the labelled come first, and so stay


def _can_be_decoded(sample: Sample, *, channels: int, side: int, how: str) -> bool:
    try:
        decode(read_or_empty(sample), channels=channels, side=side, interpolation=how)
    except BadImageError:
        return False
    return True
