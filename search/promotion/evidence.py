"""What a candidate and the champion make of test images, as the numbers that the gate judges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.promotion.gate import Evidence
from search.promotion.packaged import PackagedModel, latency_ms
from search.space.promotion_sections import GateSection
from search.tracking.model_files import size_mb
from trainable.data.image_guard import ImagesChangedError
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS
from trainable.errors import UserError
from trainable.serving.encoded import EncodedImage, encoded_images
from trainable.statistics.comparison import METRICS, Judged, Paired, compare, judge
from trainable.statistics.conformal import Covered, Unsure, covered


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model makes of N labelled images: probabilities N×K, the columns in the order of ``classes``."""

    model: PackagedModel
    images: Sequence[EncodedImage]
    classes: Sequence[str]
    probabilities: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of the right class of each image."""
        return _indices([image.label for image in self.images], classes=self.classes)

    @property
    def chosen(self) -> list[str]:
        """The likeliest class of each image."""
        return [self.classes[index] for index in self.probabilities.argmax(axis=1)]


def answer(model: PackagedModel, *, images: Sequence[EncodedImage], classes: Sequence[str] | None = None) -> Answers:
    """Ask a model, through its package, about images; the columns are ``classes``, its own if none are given."""
    columns = model.classes if classes is None else classes
    probabilities = model.answer(images, classes=columns)
    return Answers(model=model, images=images, classes=columns, probabilities=probabilities)


def gather(candidate: Answers, *, opponent: PackagedModel | None, rule: GateSection) -> Evidence:
    """Measure all that the gate asks of a candidate's answers to its test images, beside an opponent if there is one."""
    labels, num_classes = candidate.labels, len(candidate.classes)
    constant = np.full(len(labels), np.bincount(labels).argmax())
    alone = Evidence(
        test=_judge(candidate, rule=rule),
        chance=float(METRICS[rule.metric](labels, constant, num_classes=num_classes)),
        latency_ms=latency_ms(candidate.model, candidate.images[0]),
        size_mb=size_mb(candidate.model.folder),
        unsure=_covered(candidate),
    )
    return alone if opponent is None else _beside(opponent, candidate, alone=alone, rule=rule)


def _covered(answers: Answers) -> Covered | None:
    unsure = answers.model.description.get("unsure")
    if unsure is None:
        return None
    return covered(Unsure(**unsure), probabilities=answers.probabilities, labels=answers.labels)


def _beside(opponent: PackagedModel, candidate: Answers, *, alone: Evidence, rule: GateSection) -> Evidence:
    """Add what the opponent makes of the candidate's test images that are fair to ask it, and of its own."""
    old_test, why_no_old_test = _compare_on_old_test(candidate.model, opponent, rule=rule)
    evidence = replace(alone, has_champion=True, old_test=old_test, why_no_old_test=why_no_old_test)
    fair = [row for row, image in enumerate(candidate.images) if not opponent.was_trained_on(image.sample_id)]
    if len(fair) < 2:
        return replace(evidence, why_unpaired="it was trained on the candidate's test images")
    images, chosen = [candidate.images[row] for row in fair], candidate.chosen
    theirs = answer(opponent, images=images, classes=_all_classes(candidate.model, opponent))
    paired = _pair([chosen[row] for row in fair], theirs, rule=rule)
    return replace(evidence, champion_test=_judge(theirs, rule=rule), paired=paired)


def _compare_on_old_test(
    candidate: PackagedModel, opponent: PackagedModel, *, rule: GateSection
) -> tuple[Paired | None, str]:
    """Compare both on the opponent's test images that are still to be had and that the candidate was not trained on.

    Nothing where both were made of the same images; else, where there are too few, that is said.
    """
    if candidate.fingerprint == opponent.fingerprint:
        return None, ""
    wanted = {sample_id for sample_id, split in opponent.splits.items() if split == opponent.test_split}
    there = {**_find_images(opponent, wanted=wanted), **_find_images(candidate, wanted=wanted)}
    classes = _all_classes(candidate, opponent)
    images = [
        image for image in there.values() if image.label in classes and not candidate.was_trained_on(image.sample_id)
    ]
    if len(images) < 2:
        return None, f"{len(there)} of {len(wanted)} are still there, {len(images)} of them not trained on since"
    return _pair(
        answer(candidate, images=images).chosen, answer(opponent, images=images, classes=classes), rule=rule
    ), ""


def _judge(answers: Answers, *, rule: GateSection) -> Judged:
    return judge(answers.probabilities, labels=answers.labels, classes=answers.classes, confidence=rule.confidence)


def _pair(chosen: Sequence[str], theirs: Answers, *, rule: GateSection) -> Paired:
    """Compare the classes that the candidate chose with the opponent's answers to the same images."""
    return compare(
        _indices(chosen, classes=theirs.classes),
        theirs.probabilities.argmax(axis=1),
        labels=theirs.labels,
        num_classes=len(theirs.classes),
        metric=rule.metric,
        confidence=rule.confidence,
    )


def _all_classes(candidate: PackagedModel, opponent: PackagedModel) -> list[str]:
    return sorted({*candidate.classes, *opponent.classes})


def _indices(names: Sequence[str], *, classes: Sequence[str]) -> NDArray[np.int64]:
    """The place of each name among the classes."""
    places = {name: index for index, name in enumerate(classes)}
    return np.array([places[name] for name in names], dtype=np.int64)


def _find_images(model: PackagedModel, *, wanted: set[int]) -> dict[int, EncodedImage]:
    """The images of a model's data that are wanted; none where the data are gone."""
    try:
        splits = (*SPLITS, *TARGET_SPLITS) if model.config.data.oracle else SPLITS
        images = [image for split in splits for image in encoded_images(model.config, split=split)]
    except (UserError, ImagesChangedError):
        return {}
    return {image.sample_id: image for image in images if image.sample_id in wanted}
