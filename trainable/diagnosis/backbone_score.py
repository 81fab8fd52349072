"""How far a backbone's frozen features serve a task, on a sample of its images; kept for every search of the same data."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from trainable.atomic import make_private_folder, write_beside
from trainable.config.trial import FinetuneConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, cache_errors, cache_folder, open_pack
from trainable.data.some_images import SomeImages
from trainable.diagnosis.features import Array, stratified
from trainable.json_text import to_json
from trainable.loader.batches import Rows, normalise
from trainable.loader.views import evaluation_views
from trainable.model.backbone import input_spec
from trainable.model.forward_cost import forward_cost
from trainable.model.network import Network, create_network
from trainable.model.precision import used_amp
from trainable.model.weights_at_hand import weights_identity
from trainable.statistics.probe import fit_probe
from trainable.statistics.scores import score
from trainable.statistics.transferability import h_score, logme
from trainable.training.device import autocast, pick_device

FOLDER = "backbones"
VERSION = 1  # of everything between the images and the scores
SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class BackboneScore:
    """What a backbone's frozen pooled features are worth, and what they cost.

    ``logme`` and ``h_score`` are of ``num_images`` training images (:mod:`trainable.statistics.transferability`), ``probe`` the
    balanced accuracy, on validation images, of a logistic regression that is fitted to them. ``seconds_per_image`` is what the
    forward pass took where it was measured, ``gmacs`` and ``parameters`` are those of :class:`ForwardCost`.
    """

    logme: float
    h_score: float
    probe: float
    num_images: int
    image_size: int
    gmacs: float
    parameters: int
    seconds_per_image: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is known of a backbone before it is run: the cost of its forward pass, and its score where it has one already."""

    gmacs: float
    score: BackboneScore | None


@dataclass(frozen=True)
class Sample:
    """The images by which backbones are compared: rows by split of a pack at the size of any of them."""

    pack: Pack
    rows: dict[str, Rows]


def outlook(config: TrialConfig, *, sample: Sample) -> Outlook:
    """What is known of a trial's backbone; nothing is computed or downloaded. Raises UserError where it cannot be built."""
    path = _path(config, sample=sample)
    return Outlook(gmacs=forward_cost(_frozen(config)).gmacs, score=_kept(path))


def score_backbone(
    config: TrialConfig,
    *,
    sample: Sample,
    seconds: float | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> BackboneScore | None:
    """The score of a trial's backbone at its own configuration's image size, computed where it is not kept yet.

    None where the features would, by the batches so far, not be there ``seconds`` after the call. Raises UserError for weights
    that cannot be used, ImagesChangedError where an image is not what it was.
    """
    path = _path(config, sample=sample)
    known = _kept(path)
    if known is not None:
        return known
    features = _features(_frozen(config), sample=sample, until=None if seconds is None else now() + seconds, now=now)
    if features is None:
        return None
    by_split, seconds_per_image = features
    scored = _score(config, sample=sample, by_split=by_split, seconds_per_image=seconds_per_image)
    with cache_errors(path.parent):
        make_private_folder(path.parent)
        with write_beside(path) as file:
            file.write(to_json(asdict(scored)).encode())
    return scored


def draw_sample(config: TrialConfig, *, limit: int | None) -> Sample:
    """At most ``limit`` training and as many validation images of a trial's data, classes in proportion; None takes all."""
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    rows = {}
    for split in SPLITS:
        of_split = pack.indices(split)
        rows[split] = of_split[stratified(pack.labels[of_split], limit=limit or len(of_split))]
    return Sample(pack, rows)


def _frozen(config: TrialConfig) -> TrialConfig:
    """The trial with its backbone as the weights have it, whatever would train in it."""
    return config.model_copy(update={"finetune": FinetuneConfig(strategy="partial")})


def _features(
    config: TrialConfig, *, sample: Sample, until: float | None, now: Callable[[], float]
) -> tuple[dict[str, Array], float] | None:
    """Pooled features N×F by split and what one image took; None where they would not be there ``until`` then."""
    spec, device = _spec(config), pick_device(config)
    images = SomeImages(sample.pack, config=config.data)
    network = create_network(config, spec=spec, num_classes=len(sample.pack.classes)).to(device).eval()
    every = [(split, rows) for split in SPLITS for rows in _batches(sample.rows[split], size=config.train.batch_size)]
    by_split: dict[str, list[Array]] = {split: [] for split in SPLITS}
    took, began = [], now()
    for done, (split, rows) in enumerate(every, start=1):
        views = evaluation_views(images.decoded(rows, spec=spec), spec)
        started = now()
        by_split[split].append(_pass(network, normalise(views.to(device), spec), config=config))
        took.append((now() - started) / len(rows))
        if until is not None and now() + (now() - began) / done * (len(every) - done) > until:
            return None
    return {split: np.concatenate(parts) for split, parts in by_split.items()}, median(took)


def _pass(network: Network, images: torch.Tensor, *, config: TrialConfig) -> Array:
    with torch.inference_mode(), autocast(images.device, config.train):
        return np.asarray(network.features(images).float().cpu().numpy())


def _batches(rows: Rows, *, size: int) -> Iterator[Rows]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _score(
    config: TrialConfig, *, sample: Sample, by_split: dict[str, Array], seconds_per_image: float
) -> BackboneScore:
    labels = {split: sample.pack.labels[sample.rows[split]] for split in SPLITS}
    classes = sample.pack.classes
    probe = fit_probe(by_split["train"], labels["train"], kind="logreg")
    evaluation = score(
        probe.probabilities(by_split["val"], num_classes=len(classes)), labels=labels["val"], classes=classes
    )
    cost = forward_cost(_frozen(config))
    return BackboneScore(
        logme=logme(by_split["train"], labels["train"]),
        h_score=h_score(by_split["train"], labels["train"]),
        probe=evaluation.metrics["balanced_accuracy"],
        num_images=len(labels["train"]),
        image_size=cost.image_size,
        gmacs=cost.gmacs,
        parameters=cost.parameters,
        seconds_per_image=seconds_per_image,
    )


def _spec(config: TrialConfig) -> InputSpec:
    return input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)


def _path(config: TrialConfig, *, sample: Sample) -> Path:
    """The file of a score, named by everything that determines it."""
    spec, model = _spec(config), config.model
    images = {
        split: blake3(sample.pack.sample_ids[rows].tobytes() + sample.pack.labels[rows].tobytes()).hexdigest(length=16)
        for split, rows in sample.rows.items()
    }
    identity: list[Any] = [
        VERSION,
        sample.pack.fingerprint,
        images,
        asdict(spec),
        config.data.decoding,
        [model.name, weights_identity(model.name, weights=model.weights), model.until, model.pool],
        config.seed if model.weights == "random" else None,
        used_amp(config.train.amp, pick_device(config)),
        _versions(),
    ]
    name = blake3(json.dumps(identity, sort_keys=True).encode()).hexdigest(length=16)
    return cache_folder(config.data) / FOLDER / f"{name}.json"


def _kept(path: Path) -> BackboneScore | None:
    """The score that is kept; None where there is none, or what lies there is none."""
    try:
        return BackboneScore(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "timm")}
