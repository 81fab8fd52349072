"""Probes of few images a class: how far frozen features get with how many."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainable.diagnosis.features import POOLED, Features
from trainable.statistics.arrays import Labels
from trainable.statistics.learning_curve import Gain, LearningCurve, Shots, learning_curve
from trainable.statistics.probe import fit_probe

LADDER = (1, 2, 5)  # images a class, times powers of ten
MAX_DRAWN = 2000  # images of a probe: the largest take most of the time
DRAWS = ((5, 10), (20, 5))  # up to so many images a class, so many draws
DRAWS_OF_MANY = 3
LEAST_GAIN = 0.005  # of a class's recall that is worth a word


def shot_curve(features: Features, *, probabilities: NDArray[np.floating], seed: int = 0) -> LearningCurve:
    """The learning curve of a probe of the pooled features, on the validation images.

    ``probabilities`` N×K are those of the probe of all training images. A class with fewer images than are drawn of each gives
    all that it has.
    """
    labels, held_out = features.labels["train"], features.labels["val"]
    counts = np.bincount(labels, minlength=len(features.classes))
    shots = [
        Shots(
            counts=np.minimum(counts, number),
            right=np.stack(
                [_right(features, _drawn(labels, number=number, seed=[seed, number, draw])) for draw in draws]
            ),
        )
        for number, draws in _ladder(counts)
    ]
    every = Shots(counts=counts, right=(probabilities.argmax(axis=1) == held_out)[None])
    return learning_curve([*shots, every], labels=held_out, seed=seed)


def curve_sentence(curve: LearningCurve, *, classes: Sequence[str]) -> str:
    """What more images would be worth, in one sentence; points are hundredths of the balanced accuracy."""
    if curve.law is None:
        return f"what more images would be worth to a linear probe cannot be told: {curve.why_not}"
    twice, *further = curve.gains
    told = f"{twice.more:,} more images, twice today's, would be worth {_points(twice)} points of balanced accuracy"
    told += "".join(f", {gain.more:,} more {_points(gain)}" for gain in further) + " to a linear probe (95 %)"
    first = curve.classes[0]
    stands_out = first.gain > max(first.error, LEAST_GAIN)
    return told + (f"; most for {classes[first.label]!r}" if stands_out else "; for no class more than chance tells")


def _points(gain: Gain) -> str:
    return f"{100 * gain.value:.1f} ± {50 * (gain.high - gain.low):.1f}"


def _ladder(counts: Labels) -> Iterator[tuple[int, range]]:
    """Numbers of images a class below all that there are, with the draws of each."""
    for power in range(10):
        for number in (step * 10**power for step in LADDER):
            num_images = int(np.minimum(counts, number).sum())
            if number >= counts.max() or num_images > MAX_DRAWN or num_images == counts.sum():
                return
            yield number, range(next((draws for most, draws in DRAWS if number <= most), DRAWS_OF_MANY))


def _drawn(labels: Labels, *, number: int, seed: list[int]) -> Labels:
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == label))[:number] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def _right(features: Features, rows: Labels) -> NDArray[np.bool_]:
    probe = fit_probe(features.of(POOLED, split="train")[rows], features.labels["train"][rows], kind="logreg")
    predicted = probe.probabilities(features.of(POOLED, split="val"), num_classes=len(features.classes)).argmax(axis=1)
    return np.asarray(predicted == features.labels["val"])
