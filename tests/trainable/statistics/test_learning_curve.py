"""Power laws through accuracies worked by hand, and what they say of more images."""

import numpy as np
import pytest

from trainable.statistics.learning_curve import Shots, fit_power_law, learning_curve

SIZES = np.array([1.0, 4.0, 16.0, 64.0])


def law(values, errors=0.01):
    return fit_power_law(SIZES, values=np.array(values), errors=np.full(4, errors))


@pytest.mark.parametrize(
    ("values", "a", "b", "c"),
    [
        ([0.5, 0.7, 0.8, 0.85], 0.9, 0.4, 0.5),  # 0.9 - 0.4/√n
        ([0.5, 0.75, 0.875, 0.9375], 1.0, 0.5, 0.5),  # 1 - 0.5/√n
        ([0.2, 0.65, 0.7625, 0.790625], 0.8, 0.6, 1.0),  # 0.8 - 0.6/n
    ],
)
def test_a_law_is_found_that_the_accuracies_lie_on(values, a, b, c):
    found = law(values)
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), abs=1e-4)  # minimised to 1e-5 of log c
    assert found.at(256) == pytest.approx(a - b * 256**-c, abs=1e-5)


def test_an_uncertain_point_counts_less_and_accuracy_stays_below_1():
    values = [0.2, 0.7, 0.8, 0.85]
    off = fit_power_law(SIZES, values=np.array(values), errors=np.array([10.0, 0.001, 0.001, 0.001]))
    assert off.at(1) == pytest.approx(0.5, abs=0.01)  # that 0.9 - 0.4/√n has there, past the wrong point
    steep = law([0.4, 0.6, 0.8, 1.0])  # a straight line over log n, which would pass 1
    assert steep.at(1e9) <= 1


def shots(recalls, *, images=100, counts=(1, 4, 16, 64), draws=1):
    """Answers to so many images of each of two classes, with these recalls of the first and the second."""
    labels = np.repeat([0, 1], images)
    made = []
    for number, (first, second) in zip(counts, recalls, strict=True):
        right = np.concatenate([np.arange(images) < round(first * images), np.arange(images) < round(second * images)])
        made.append(Shots(counts=np.array([number, number]), right=np.tile(right, (draws, 1))))
    return made, labels


RISING = [(0.5, 0.5), (0.8, 0.6), (0.9, 0.7), (0.9, 0.8)]  # balanced 0.5, 0.7, 0.8, 0.85


def test_the_gain_of_more_images_is_that_of_the_law():
    made, labels = shots(RISING, images=1000)
    curve = learning_curve(made, labels=labels, seed=0)
    assert [point.num_images for point in curve.points] == [2, 8, 32, 128]
    assert [point.value for point in curve.points] == pytest.approx([0.5, 0.7, 0.8, 0.85])
    twice, fourfold = curve.gains
    assert (twice.more, fourfold.more) == (128, 384)
    # 0.9 - 0.4·√2/√n of n images in both classes: 0.05 today, half of that with four times as many
    assert twice.value == pytest.approx(0.05 * (1 - 0.5**0.5), abs=2e-3)
    assert fourfold.value == pytest.approx(0.025, abs=3e-3)
    assert twice.low < twice.value < twice.high < twice.low + 0.02


def test_a_points_error_is_that_of_its_held_out_images_and_draws():
    """A share of ½ of 400 images has the error √(¼/400) in each class, their mean 1/√2 of it."""
    made, labels = shots([(0.5, 0.5)] * 4, images=400)
    errors = [point.error for point in learning_curve(made, labels=labels, seed=0).points]
    assert errors == pytest.approx([0.025 / 2**0.5] * 4, rel=0.15)  # of 200 resamples
    mixed = Shots(counts=np.array([1, 1]), right=np.stack([np.ones(800, bool), np.zeros(800, bool)]))
    point = learning_curve([mixed], labels=labels, seed=0).points[0]
    assert (point.value, point.draws) == (pytest.approx(0.5), 2)
    assert point.error == pytest.approx(0.5 / 2**0.5, rel=0.15)  # ½ either way, of two draws


def test_classes_are_ordered_by_what_twice_their_images_would_add():
    """The first class's last three recalls rise by 0.1 and 0 in four doublings, the second's by 0.2: 0.0125·2 and 0.05."""
    made, labels = shots(RISING)
    first, second = learning_curve(made, labels=labels, seed=0).classes
    assert (first.label, first.count, first.recall) == (1, 64, pytest.approx(0.8))
    assert first.gain == pytest.approx(0.05)
    assert (second.label, second.gain) == (0, pytest.approx(0.025))
    full, labels = shots([(0.5, 0.4), (0.8, 0.6), (0.9, 0.7), (1.0, 0.8)])
    assert learning_curve(full, labels=labels, seed=0).classes[-1].gain == 0  # of a recall of 1


def test_a_class_with_no_more_images_keeps_its_slope_over_its_own():
    made, labels = shots(RISING)
    made = [Shots(counts=np.minimum(each.counts, [64, 4]), right=each.right) for each in made]
    rare = next(each for each in learning_curve(made, labels=labels, seed=0).classes if each.label == 1)
    assert (rare.count, rare.recall) == (4, pytest.approx(0.8))
    assert rare.gain == pytest.approx((0.8 - 0.5) / 2)  # from 1 to 4 images, at which the last size's recall counts


@pytest.mark.parametrize(
    ("recalls", "images", "said"),
    [
        (RISING[:3], 1000, "3 numbers of images are too few, 4 are needed"),
        ([(0.7, 0.7)] * 4, 1000, "the accuracy does not rise with the images"),
        ([(0.5, 0.5), (0.5, 0.5), (0.9, 0.9), (0.9, 0.9)], 1000, "the accuracies lie on no power law"),
        ([(0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75)], 4, "too uncertain, twice the images are worth"),
    ],
)
def test_a_curve_that_does_not_tell_gives_no_number_but_the_reason(recalls, images, said):
    made, labels = shots(recalls, images=images, counts=(1, 2, 4, 8)[: len(recalls)])
    curve = learning_curve(made, labels=labels, seed=0)
    assert curve.why_not.startswith(said)
    assert (curve.law, curve.gains) == (None, ())
    assert len(curve.points) == len(recalls)
