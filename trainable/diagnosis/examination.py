"""Looks at a trained network beside others on the same held-out images."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from trainable.diagnosis.mistakes import mistakes_of
from trainable.errors import UserError
from trainable.model.backbone import input_spec
from trainable.statistics.comparison import compare_probabilities, score_interval
from trainable.training.checkpoint import BrokenCheckpointError
from trainable.training.evaluate import Predicted
from trainable.training.setup import Setup
from trainable.training.trained import Trained

logger = logging.getLogger(__name__)


def examine(trained: Trained, *, others: Mapping[str, Trained], confidence: float) -> dict[str, Any]:
    """What held-out images say of a network by the metric that its training went by; plain data.

    ``interval`` is that of its value over resampled images, None for a metric that has none. ``comparison`` has the number of
    images, the side of those that the backbone was made for, and of each of ``others`` whose answers to the same images can
    be had its value, and how much better the network is, the bounds each one-sided at half of 1 - ``confidence``. Of a target
    without labels both say nothing. ``mistakes`` are those on the validation images, as :func:`mistakes_of` has them.
    """
    split, _, metric = trained.config.train.metric.partition("/")
    setup, predicted = trained.answers("val", as_measured=True)
    indices = setup.pack.indices("val")
    mistakes = mistakes_of(predicted, pack=setup.pack, indices=indices, confidence=confidence)
    if split == "target":
        return {"interval": None, "comparison": {}, "mistakes": mistakes}
    images = "val" if split == "val" else "target_val"
    if images != "val":
        setup, predicted = trained.answers(images, as_measured=True)
    interval = score_interval(predicted.probabilities, labels=predicted.labels, metric=metric, confidence=confidence)
    scores = {}
    for name, other in others.items():
        answers = _answers_to(images, other=other, setup=setup, name=name)
        score = None if answers is None else _beside(answers, predicted, metric=metric, confidence=confidence)
        if score is not None:
            scores[name] = score
    model, channels = setup.config.model, setup.config.data.channels
    own_size = input_spec(model, image_size=None, channels=channels).size
    return {
        "interval": None if interval is None else asdict(interval) | {"num_images": len(predicted.labels)},
        "comparison": {"num_images": len(predicted.labels), "own_size": own_size, "others": scores},
        "mistakes": mistakes,
    }


def _answers_to(images: str, *, other: Trained, setup: Setup, name: str) -> Predicted | None:
    """Another network's answers to the images of ``setup``; None where its weights are gone or it knows other images."""
    try:
        others, predicted = other.answers(images, as_measured=True)
    except (UserError, BrokenCheckpointError) as error:
        logger.warning("%s is not compared with the final candidate: %s", name, error)
        return None
    is_same = np.array_equal(_sample_ids(others, images), _sample_ids(setup, images))
    return predicted if is_same else None


def _sample_ids(setup: Setup, images: str) -> Any:
    return setup.pack.sample_ids[setup.pack.indices(images)]


def _beside(other: Predicted, predicted: Predicted, *, metric: str, confidence: float) -> dict[str, float] | None:
    labels = predicted.labels
    of_each_end = (1 + confidence) / 2
    paired = compare_probabilities(
        predicted.probabilities, other.probabilities, labels=labels, metric=metric, confidence=of_each_end
    )
    value = score_interval(other.probabilities, labels=labels, metric=metric, confidence=confidence)
    if paired is None or value is None:
        return None
    return {"value": value.value} | paired.figures
