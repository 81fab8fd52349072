"""Looks at a task through a frozen backbone: sizes, balance, probes of every stage, distance to a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack, open_unlabelled
from trainable.data.readers.folder import read_unlabelled
from trainable.data.readers.sample import SPLITS
from trainable.diagnosis.features import (
    POOLED,
    Array,
    Features,
    Labels,
    Progress,
    frozen_features,
    stage_features,
    stratified,
)
from trainable.diagnosis.shots import curve_sentence, shot_curve
from trainable.errors import UserError
from trainable.model.backbone import input_spec
from trainable.model.light_adapters import without_adapters
from trainable.model.network import create_network
from trainable.statistics.learning_curve import LearningCurve
from trainable.statistics.probe import fit_probe
from trainable.statistics.scores import Evaluation, score
from trainable.statistics.transferability import class_distance_ratio, h_score, logme, mmd_permutation_test
from trainable.training.device import pick_device

EARLIER = ("stage1", "stage2", "stage3")  # the last stage is as far from the pixels as the pooled features
MAX_SCORED = 5000  # training images that LogME, H-score and the distances look at: singular values take N·F² steps
MAX_COMPARED = 1000  # images of each sample that the discrepancy looks at: it takes memory for (N+M)² numbers
PERMUTATIONS = 199
MIN_REFERENCE = 10


@dataclass(frozen=True, kw_only=True)
class StageScores:
    """How far a stage's features serve: a probe's scores on validation images, the others on training images.

    LogME in nats an image, H-score 0 to K-1, the distance ratio of the classes from 0 on; more is better for each.
    """

    probe: Evaluation
    logme: float
    h_score: float
    class_distance_ratio: float

    @property
    def value(self) -> float:
        """The probe's balanced accuracy."""
        return self.probe.metrics["balanced_accuracy"]


@dataclass(frozen=True)
class Lead:
    """Balanced accuracy of the best earlier ``stage`` less that of the pooled features, with its standard error."""

    stage: str
    value: float
    error: float


@dataclass(frozen=True)
class Discrepancy:
    """Squared MMD (0 to 2) of the pooled features to those of ``num_images`` reference images, and p of chance."""

    value: float
    p: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known of a task before any training.

    ``counts`` are images by split and class; ``stages`` the scores by stage from the input on, the last `pooled`. ``lead``
    is None where the backbone shows no stage before the last, ``discrepancy`` where no reference was given. ``curve`` is that of
    a probe of the pooled features by the number of its images. ``notes`` are the data report's, a line each.
    """

    counts: Mapping[str, Mapping[str, int]]
    stages: Mapping[str, StageScores]
    lead: Lead | None = None
    discrepancy: Discrepancy | None = None
    curve: LearningCurve | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """Images of all splits."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def num_training(self) -> int:
        """Training images."""
        return sum(self.counts["train"].values())

    @property
    def images_per_class(self) -> float:
        """Training images of a class on average."""
        return self.num_training / len(self.counts["train"])

    @property
    def imbalance(self) -> float:
        """Training images of the largest class over those of the smallest."""
        return max(self.counts["train"].values()) / max(1, min(self.counts["train"].values()))

    @property
    def best_stage(self) -> str:
        """The stage of the best probe; of equals the last, which needs no change of the network."""
        return max(reversed(tuple(self.stages)), key=lambda stage: self.stages[stage].value)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return tuple(self.counts["train"])

    def _curve_dict(self) -> dict[str, Any] | None:
        """The learning curve, its classes by name, with its sentence."""
        if self.curve is None:
            return None
        document = self.curve.as_dict()
        for each in document["classes"]:
            each["class"] = self.classes[each.pop("label")]
        return document | {"sentence": curve_sentence(self.curve, classes=self.classes)}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        stages = {
            name: stage.probe.as_dict()
            | {"logme": stage.logme, "h_score": stage.h_score, "class_distance_ratio": stage.class_distance_ratio}
            for name, stage in self.stages.items()
        }
        return {
            "counts": {split: dict(classes) for split, classes in self.counts.items()},
            "images": self.num_images,
            "imbalance": self.imbalance,
            "stages": stages,
            "best_stage": self.best_stage,
            "notes": list(self.notes),
            "learning_curve": self._curve_dict(),
            "lead": None if self.lead is None else vars(self.lead),
            "discrepancy": None if self.discrepancy is None else vars(self.discrepancy),
        }


def look(
    config: TrialConfig,
    *,
    reference: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[Diagnosis, Features]:
    """The diagnosis of a trial's data and backbone, and the features it was made from, of one pass over the images.

    ``reference`` is a folder with images such as the backbone was pretrained on, their labels no matter. Features are those of
    at most ``limit`` images of each split, classes in proportion; counts are of all. ``progress`` hears how far it is. Raises
    UserError for data, weights or a reference that cannot be used.
    """
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    notes = tuple(finding["line"] for finding in pack.report.get("findings", ()))
    others = None if reference is None else reference_features(config, path=reference)
    features = frozen_features(config, limit=limit, progress=progress)  # last, as the longest: mistakes show before it
    return replace(diagnose(features, counts=pack.counts(), reference=others), notes=notes), features


def diagnose(
    features: Features, *, counts: Mapping[str, Mapping[str, int]], reference: Array | None = None
) -> Diagnosis:
    """The diagnosis that features amount to; ``reference`` are pooled features M×F of other images."""
    labels, probabilities = features.labels["val"], _probabilities(features)
    chosen = stratified(features.labels["train"], limit=MAX_SCORED)
    stages = {
        stage: _scores(
            features, stage=stage, probe=score(predictions, labels=labels, classes=features.classes), rows=chosen
        )
        for stage, predictions in probabilities.items()
    }
    right = {stage: predictions.argmax(axis=1) == labels for stage, predictions in probabilities.items()}
    earlier = [stage for stage in stages if stage in EARLIER]
    lead = None
    if earlier:
        best = max(earlier, key=lambda stage: stages[stage].value)
        lead = Lead(best, *paired_difference(right[best], right[POOLED], labels=labels))
    return Diagnosis(
        counts=counts,
        stages=stages,
        lead=lead,
        discrepancy=None if reference is None else _discrepancy(features, reference),
        curve=shot_curve(features, probabilities=probabilities[POOLED]),
    )


def reference_features(config: TrialConfig, *, path: str) -> Array:
    """Pooled features M×F of every image below a folder, from the trial's frozen backbone."""
    data = config.data.model_copy(update={"path": path, "format": "folder"})
    spec = input_spec(config.model, image_size=data.image_size, channels=data.channels)
    pack = _open_reference(data, spec=spec)
    network = create_network(without_adapters(config), spec=spec, num_classes=2).to(pick_device(config))
    size = config.train.batch_size
    features = [stage_features(network, pack=pack, spec=spec, split=split, batch_size=size)[POOLED] for split in SPLITS]
    return np.concatenate(features)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_], *, labels: Labels) -> tuple[float, float]:
    """Difference in balanced accuracy of two classifiers on the same images, and its standard error.

    ``first`` and ``second`` say which of N images each has right. The error is that of matched proportions, the variance
    pooled over classes and half an image added to both kinds of disagreement (Agresti and Min 2005), so that few images
    without any are no certainty.
    """
    differences = first.astype(np.float64) - second.astype(np.float64)
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.bincount(position, weights=differences) / counts
    variance = (np.square(differences - means[position]).sum() + 1) / len(labels)
    return float(means.mean()), float(np.sqrt(variance * (1 / counts).sum()) / len(counts))


def _probabilities(features: Features) -> dict[str, NDArray[Any]]:
    """Of a probe of each stage, N×K on the validation images; equal features are probed once."""
    by_stage: dict[str, NDArray[Any]] = {}
    for stage in features.stages:
        values = features.of(stage, split="train")
        same = [earlier for earlier in by_stage if np.array_equal(features.of(earlier, split="train"), values)]
        if same:
            by_stage[stage] = by_stage[same[0]]
            continue
        probe = fit_probe(values, features.labels["train"], kind="logreg")
        by_stage[stage] = probe.probabilities(features.of(stage, split="val"), num_classes=len(features.classes))
    return by_stage


def _scores(features: Features, *, stage: str, probe: Evaluation, rows: Labels) -> StageScores:
    values, labels = features.of(stage, split="train")[rows], features.labels["train"][rows]
    return StageScores(
        probe=probe,
        logme=logme(values, labels),
        h_score=h_score(values, labels),
        class_distance_ratio=class_distance_ratio(values, labels),
    )


def _discrepancy(features: Features, reference: Array) -> Discrepancy:
    training = features.of(POOLED, split="train")[stratified(features.labels["train"], limit=MAX_COMPARED)]
    others = reference[stratified(np.zeros(len(reference), dtype=np.int64), limit=MAX_COMPARED)]
    return Discrepancy(*mmd_permutation_test(training, others, permutations=PERMUTATIONS, seed=0), len(others))


def _open_reference(data: DataConfig, *, spec: InputSpec) -> Pack:
    try:
        number = len(read_unlabelled(data).samples)
        if number < MIN_REFERENCE:
            raise UserError(f"{data.path!r} has {number} images, at least {MIN_REFERENCE} are needed")
        return open_unlabelled(data, spec)
    except UserError as error:
        raise UserError(f"reference: {str(error).removeprefix('data.path: ')}") from error
