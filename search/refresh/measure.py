"""What the rungs of a refresh measure: drift, the champion's loss, that of its configuration trained again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.ledger.files import kept_checkpoint
from search.ledger.ledger import Ledger
from search.ledger.trials import best_trial
from search.refresh.champion import ChampionImages
from search.refresh.decision import Loss
from search.space.spec import SearchSpec
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import held_to
from trainable.serving.encoded import EncodedImage
from trainable.statistics.comparison import METRICS, loss_against
from trainable.statistics.drift import ALL, SAME, Drift, drifted, feature_drift, prior_drift
from trainable.training.finishing import read_finish
from trainable.training.trained import Trained

FEWEST_DRAWN = 2
FEWEST_ASKED = 10  # images on either side below which a loss has no lower bound: chance alone may make any of it
MOST_COMPARED = 1000  # images a side, for drift

Predictions = tuple[NDArray[np.int64], NDArray[np.int64]]  # predicted classes N, labels N


def measure_drift(champion_images: ChampionImages, *, spec: SearchSpec) -> dict[str, Any]:
    """Compare features of new images with those of held-out ones, and the shares of classes among all that are new.

    Features of images that a network was trained on differ from those of others without any drift. ``note`` says what could
    not be compared.
    """
    rule, seed = spec.refresh, spec.search.seed
    new, new_target = champion_images.new_images_outside_test, champion_images.new_target_images
    features, note = _feature_drift(champion_images, champion_images.held_out_images(), new, seed=seed)
    prior = prior_drift(champion_images.reference.counts, Counter(image.label for image in new), seed=seed)
    reasons = drifted(features, prior, p=rule.drift_p, effect=rule.drift_effect)
    measured = {"features": {name: drift.as_dict() for name, drift in features.items()}, "classes": prior.as_dict()}
    if new_target:
        features, of_target = _feature_drift(
            champion_images, champion_images.held_out_images(target=True), new_target, seed=seed
        )
        note = of_target or (note if new else "")
        whole = {name: drift for name, drift in features.items() if name == ALL}
        reasons += drifted(whole, SAME, p=rule.drift_p, effect=rule.drift_effect, whole="images to adapt to")
        measured["target"] = {name: drift.as_dict() for name, drift in whole.items()}
    return {"reasons": reasons, "note": note, **measured}


def measure_champion(champion_images: ChampionImages, *, spec: SearchSpec) -> dict[str, Any]:
    """Measure the :class:`Loss` of the champion on new images, or say why it cannot be asked."""
    new = [*champion_images.new_images_outside_test, *champion_images.relabelled_images]
    test_images = champion_images.own_test_images
    if not {image.label for image in new} & {image.label for image in test_images}:
        counts = f"{len(new)} new images outside the test, {len(test_images)} of its own test images"
        return {"unasked": f"{counts}, no class in common"}
    classes = sorted({image.label for image in (*new, *test_images)} | set(champion_images.model.classes))
    now, before = (_ask(champion_images, images, classes=classes) for images in (new, test_images))
    return measure_loss(now, before, num_classes=len(classes), spec=spec)


def measure_refit(
    champion_images: ChampionImages, *, spec: SearchSpec, refit: SearchSpec, ledger: Ledger, folder: Path
) -> dict[str, Any]:
    """Measure the :class:`Loss` of the champion's configuration trained again, on the validation images of all data."""
    metric = refit.search.metric
    trial = best_trial(ledger.trials(), metric=metric)
    if trial is None:
        return {"unasked": "; ".join(str(trial.reason) for trial in ledger.trials())}
    config = TrialConfig.model_validate(refit.config_of(trial))
    finish = read_finish(ledger.notes.finish_of(trial.number, soup=None))
    trained = Trained(config=config, checkpoint=kept_checkpoint(folder, trial, metric=metric), finish=finish)
    with held_to(ledger.notes.data.fingerprints):
        predictions = trained.predict("val")
    names, test_images = list(ledger.notes.data.classes), champion_images.own_test_images
    classes = sorted({*names, *champion_images.model.classes, *(image.label for image in test_images)})
    places = np.array([classes.index(name) for name in names])
    now = (places[predictions.probabilities.argmax(axis=1)], places[predictions.labels])
    return measure_loss(now, _ask(champion_images, test_images, classes=classes), num_classes=len(classes), spec=spec)


def score_frozen_tests(
    champion_images: ChampionImages, *, tests: Mapping[str, set[int]], spec: SearchSpec
) -> dict[str, Any]:
    """Score the champion on the test set, by ids, of each data version: what is there of it that it was not trained on."""
    sets = {name: champion_images.images_not_trained_on(ids) for name, ids in tests.items()}
    asked = list({image.sample_id: image for images in sets.values() for image in images}.values())
    classes = sorted({image.label for image in asked} | set(champion_images.model.classes))
    answers = dict(
        zip((image.sample_id for image in asked), champion_images.predict(asked, classes=classes), strict=True)
    )
    scores = {}
    for name, images in sets.items():
        predicted = np.array([answers[image.sample_id] for image in images])
        value = (
            METRICS[spec.promote.metric](_labels(images, classes=classes), predicted, num_classes=len(classes))
            if images
            else None
        )
        scores[name] = {
            "metric": spec.promote.metric,
            "value": None if value is None else float(value),
            "num_images": len(images),
            "of": len(tests[name]),
        }
    return scores


def loss_from(document: Mapping[str, Any]) -> Loss | None:
    """Read the loss that was measured; None where none was."""
    return Loss(**document) if "value" in document else None


def measure_loss(now: Predictions, before: Predictions, *, num_classes: int, spec: SearchSpec) -> dict[str, Any]:
    """Measure the :class:`Loss` of predictions on images now, against those on the champion's own test images."""
    if not len(np.intersect1d(now[1], before[1])):
        return {"unasked": "no class in common with the champion's own test images"}
    rule = spec.promote
    fall = loss_against(now, before, num_classes=num_classes, metric=rule.metric, confidence=rule.confidence)
    fewest = min(fall.num_images, int(np.isin(before[1], now[1]).sum()))
    low = fall.lost.low if fewest >= FEWEST_ASKED else None
    return asdict(Loss(value=fall.value, level=fall.level, low=low, num_images=fall.num_images))


def _feature_drift(
    champion_images: ChampionImages, old: Sequence[EncodedImage], new: Sequence[EncodedImage], *, seed: int
) -> tuple[dict[str, Drift], str]:
    """By what the features of two samples differ; nothing of too few, and how many there are."""
    if min(len(old), len(new)) < FEWEST_DRAWN:
        return {}, f"{len(new)} new images outside the test, {len(old)} to compare them with"
    samples = [_draw(images, seed=seed) for images in (old, new)]
    features = [champion_images.classifier.features([image.read_bytes() for image in images]) for images in samples]
    labels = [[image.label for image in images] for images in samples]
    return feature_drift(*features, old_labels=labels[0], new_labels=labels[1], seed=seed), ""


def _draw(images: Sequence[EncodedImage], *, seed: int) -> list[EncodedImage]:
    """Draw at most MOST_COMPARED of them, in their order."""
    rows = np.random.default_rng(seed).permutation(len(images))[:MOST_COMPARED]
    return [images[row] for row in np.sort(rows)]


def _ask(champion_images: ChampionImages, images: Sequence[EncodedImage], *, classes: Sequence[str]) -> Predictions:
    return champion_images.predict(images, classes=classes), _labels(images, classes=classes)


def _labels(images: Sequence[EncodedImage], *, classes: Sequence[str]) -> NDArray[np.int64]:
    return np.array([classes.index(image.label) for image in images], dtype=np.int64)
