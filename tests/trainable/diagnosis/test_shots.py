"""Probes of few images of clouds whose classes are a known distance apart."""

import numpy as np
import pytest

from trainable.diagnosis.features import Features
from trainable.diagnosis.shots import curve_sentence, shot_curve
from trainable.statistics.learning_curve import ClassGain, Gain, LearningCurve, PowerLaw
from trainable.statistics.probe import fit_probe


def features_of(counts, *, apart, width=20, held_out=150):
    generator = np.random.default_rng(0)

    def drawn(numbers):
        labels = np.repeat(np.arange(len(numbers)), numbers)
        values = generator.standard_normal((len(labels), width))
        values[np.arange(len(labels)), labels] += apart
        return {"pooled": values.astype(np.float32)}, labels

    train, labels = drawn(counts)
    val, val_labels = drawn([held_out] * len(counts))
    names = tuple("abcdef"[: len(counts)])
    return Features({"train": train, "val": val}, {"train": labels, "val": val_labels}, names)


def curve_of(features):
    train, val = (features.of("pooled", split=split) for split in ("train", "val"))
    probe = fit_probe(train, features.labels["train"], kind="logreg")
    return shot_curve(features, probabilities=probe.probabilities(val, num_classes=len(features.classes)))


def test_a_ladder_of_images_a_class_ends_with_all_of_them():
    features = features_of([60, 12], apart=2.5)
    curve = curve_of(features)
    assert [(point.num_images, point.draws) for point in curve.points] == [
        (2, 10),
        (4, 10),
        (10, 10),
        (20, 5),
        (20 + 12, 5),
        (50 + 12, 3),
        (72, 1),
    ]
    assert curve == curve_of(features)
    assert curve.points[-1].value > curve.points[0].value + 0.2
    assert {each.label: each.count for each in curve.classes} == {0: 60, 1: 12}


def test_what_the_law_says_of_four_times_the_images_is_about_what_they_bring():
    """Both clouds are of one distribution, so the larger set is what the smaller would grow to."""
    small, large = curve_of(features_of([100, 100, 100], apart=2.0)), curve_of(features_of([400] * 3, apart=2.0))
    fourfold = small.gains[-1]
    brought = large.points[-1].value - small.points[-1].value
    assert fourfold.more == 900
    assert fourfold.low - 0.02 < brought < fourfold.high + 0.02  # other held-out images: an error of 0.02 each


def sentence(*, gain=0.03, error=0.01, why_not=""):
    curve = LearningCurve(
        points=(),
        law=None if why_not else PowerLaw(0.9, 0.4, 0.5),
        gains=(
            Gain(more=500, value=0.021, low=0.011, high=0.031),
            Gain(more=1500, value=0.034, low=0.01, high=0.05),
        ),
        classes=(ClassGain(label=1, count=40, recall=0.6, gain=gain, error=error),),
        why_not=why_not,
    )
    return curve_sentence(curve, classes=("cat", "dog"))


def test_it_is_said_in_one_sentence():
    worth = (
        "500 more images, twice today's, would be worth 2.1 ± 1.0 points of balanced accuracy, 1,500 more 3.4 ± 2.0 to a linear "
        "probe (95 %)"
    )
    assert sentence() == f"{worth}; most for 'dog'"
    assert sentence(error=0.04) == f"{worth}; for no class more than chance tells"
    assert sentence(why_not="the accuracy does not rise with the images") == (
        "what more images would be worth to a linear probe cannot be told: the accuracy does not rise with the images"
    )


@pytest.mark.parametrize("counts", [[1, 1], [2, 30]])
def test_few_images_make_a_short_curve_and_no_mistake(counts):
    curve = curve_of(features_of(counts, apart=2.0))
    assert curve.points[-1].num_images == sum(counts)
    assert curve.law is not None or curve.why_not
