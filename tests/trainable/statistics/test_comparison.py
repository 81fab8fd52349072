"""Two classifiers on the same images: intervals, the paired test."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from trainable.statistics.comparison import (
    METRICS,
    compare,
    compare_probabilities,
    confusion_interval,
    judge,
    loss_against,
    score_interval,
    wilson,
)

generator = np.random.default_rng(0)
LABELS = generator.choice(3, size=200, p=[0.6, 0.3, 0.1])
CLASSES = ("a", "b", "c")


def guesses(share):
    """Labels of which this share is right, by hand; the rest is the class before."""
    wrong = np.arange(len(LABELS)) >= share * len(LABELS)
    return np.where(wrong, (LABELS + 1) % 3, LABELS)


def one_hot(predicted):
    return np.eye(3)[predicted]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("macro_f1", lambda labels, predicted: f1_score(labels, predicted, average="macro")),
    ],
)
def test_metrics_of_many_samples_at_once_are_scikit_learns_of_each(name, reference):
    labels = generator.integers(0, 3, (5, 40))
    predicted = generator.integers(0, 3, (5, 40))
    found = METRICS[name](labels, predicted, num_classes=3)
    assert found == pytest.approx([reference(one, other) for one, other in zip(labels, predicted, strict=True)])


def test_an_interval_holds_the_value_and_is_about_as_wide_as_the_normal_one():
    judged = judge(one_hot(guesses(0.8)), labels=LABELS, classes=CLASSES, confidence=0.95)
    accuracy = judged.metrics["accuracy"]
    deviation = math.sqrt(0.8 * 0.2 / 200)
    assert accuracy.value == pytest.approx(0.8)
    assert accuracy.low == pytest.approx(
        0.8 - 1.96 * deviation, abs=0.01
    )  # a hundredth: 2000 resamples, steps of 1/200
    assert accuracy.high == pytest.approx(0.8 + 1.96 * deviation, abs=0.01)


def test_the_same_predictions_give_the_same_interval():
    one, other = (judge(one_hot(guesses(0.8)), labels=LABELS, classes=CLASSES, confidence=0.9) for _ in range(2))
    assert one == other


def test_mcnemar_counts_the_images_that_one_alone_has_right():
    labels = np.zeros(20, dtype=int)
    first = np.array([0] * 10 + [1] * 2 + [0] * 8)
    second = np.array([1] * 10 + [0] * 2 + [0] * 8)
    found = compare(first, second, labels=labels, num_classes=2, metric="accuracy", confidence=0.95)
    assert (found.only_first, found.only_second) == (10, 2)
    # both tails of twelve throws of a coin: 2·(C(12,0) + C(12,1) + C(12,2)) / 2¹²
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert found.gain.value == pytest.approx(8 / 20)


def test_equal_classifiers_gain_nothing_for_sure():
    found = compare(guesses(0.7), guesses(0.7), labels=LABELS, num_classes=3, metric="macro_f1", confidence=0.95)
    assert (found.gain.value, found.gain.low, found.gain.high, found.p) == (0, 0, 0, 1)


def test_the_bound_of_a_gain_is_one_sided():
    """Paired differences of +1 on 30 % of the images and -1 on 10 %: mean 0.2, variance 0.4 - 0.04."""
    labels = np.zeros(400, dtype=int)
    first = np.where(np.arange(400) % 10 < 1, 1, 0)
    second = np.where((np.arange(400) % 10 >= 1) & (np.arange(400) % 10 < 4), 1, 0)
    found = compare(first, second, labels=labels, num_classes=2, metric="accuracy", confidence=0.95)
    assert found.gain.value == pytest.approx(0.2)
    assert found.gain.low == pytest.approx(0.2 - 1.645 * math.sqrt(0.36 / 400), abs=0.006)


def test_a_class_that_a_classifier_does_not_know_is_never_right():
    found = compare(LABELS, np.full(200, -1), labels=LABELS, num_classes=3, metric="balanced_accuracy", confidence=0.95)
    assert found.gain.value == 1.0
    assert (found.only_first, found.only_second) == (200, 0)


def test_recall_of_a_class_has_wilsons_interval():
    judged = judge(one_hot(LABELS), labels=LABELS, classes=CLASSES, confidence=0.95)
    rare = judged.per_class["c"]
    count = rare["count"]
    assert (rare["recall"], rare["recall_high"]) == (1.0, 1.0)
    assert rare["recall_low"] == pytest.approx(count / (count + 1.96**2), abs=1e-3)


def test_a_loss_is_measured_over_the_classes_that_both_samples_have():
    before = (guesses(0.9), LABELS)
    few = LABELS < 2  # no image of the third class is new
    now = (guesses(0.6)[few], LABELS[few])
    found = loss_against(now, before, num_classes=3, metric="balanced_accuracy", confidence=0.95)
    recalls = [[(answers[labels == one] == one).mean() for one in (0, 1)] for answers, labels in (before, now)]
    assert (found.level, found.value) == pytest.approx((np.mean(recalls[0]), np.mean(recalls[1])))
    assert found.lost.value == pytest.approx(found.level - found.value)
    assert found.lost.low < found.lost.value < found.lost.high
    assert found.num_images == few.sum()


def test_macro_f1_is_lost_over_the_common_classes_alone():
    one = LABELS == 0
    found = loss_against(
        (guesses(0.5)[one], LABELS[one]), (LABELS, LABELS), num_classes=3, metric="macro_f1", confidence=0.9
    )
    right = (guesses(0.5)[one] == 0).mean()
    assert (found.level, found.value) == pytest.approx((1.0, 2 * right / (1 + right)))


def test_the_bounds_of_a_loss_hold_as_often_as_they_say():
    generator = np.random.default_rng(1)
    below = 0
    for _ in range(100):
        right = [generator.random(size) < 0.8 for size in (60, 100)]
        labels = [np.arange(len(one)) % 2 for one in right]
        samples = [(np.where(one, label, 1 - label), label) for one, label in zip(right, labels, strict=True)]
        below += loss_against(*samples, num_classes=2, metric="accuracy", confidence=0.9).lost.low > 0
    assert 3 <= below <= 20  # of 100 without any loss 10 are expected


def test_without_a_common_class_nothing_can_be_lost():
    zeros, ones = np.zeros(3, np.int64), np.ones(3, np.int64)
    with pytest.raises(ValueError, match="no class in common"):
        loss_against((zeros, zeros), (ones, ones), num_classes=2, metric="accuracy", confidence=0.9)


def test_a_score_has_the_interval_that_a_judgement_gives_it():
    probabilities = one_hot(guesses(0.8))
    judged = judge(probabilities, labels=LABELS, classes=CLASSES, confidence=0.95)
    for name in METRICS:
        assert score_interval(probabilities, labels=LABELS, metric=name, confidence=0.95) == judged.metrics[name]


def test_the_interval_of_a_loss_is_about_the_normal_one_of_a_mean():
    chance = np.random.default_rng(1)
    shares = chance.uniform(0.2, 0.9, 200)
    probabilities = np.full((200, 3), 0.0)
    probabilities[np.arange(200), LABELS] = shares
    probabilities[np.arange(200), (LABELS + 1) % 3] = 1 - shares
    found = score_interval(probabilities, labels=LABELS, metric="loss", confidence=0.95)
    losses = -np.log(shares)
    assert found.value == pytest.approx(losses.mean())
    half = 1.96 * losses.std(ddof=1) / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=0.01)


@pytest.mark.parametrize("metric", ["ece", "snd"])
def test_what_resampled_images_do_not_tell_has_no_interval(metric):
    assert score_interval(one_hot(LABELS), labels=LABELS, metric=metric, confidence=0.95) is None


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_wilsons_interval_as_published(hits, of, low, high):
    found = wilson(hits, of=of, confidence=0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_may_be_anything():
    assert (wilson(0, of=0, confidence=0.95).low, wilson(0, of=0, confidence=0.95).high) == (0, 1)


def test_probabilities_are_compared_by_their_likeliest_classes():
    asked = {"labels": LABELS, "confidence": 0.95}
    first, second = guesses(0.9), guesses(0.8)
    expected = compare(first, second, num_classes=3, metric="accuracy", **asked)
    assert compare_probabilities(one_hot(first), one_hot(second), metric="accuracy", **asked) == expected
    assert compare_probabilities(one_hot(first), one_hot(second), metric="ece", **asked) is None


def test_a_lower_loss_is_a_gain_whose_interval_is_about_the_normal_one():
    labels = np.arange(400) % 2
    sure = 0.6 + 0.3 * generator.random(400)
    first = np.where(labels[:, None] == [[0, 1]], sure[:, None], 1 - sure[:, None])
    second = np.full((400, 2), 0.5)
    paired = compare_probabilities(first, second, labels=labels, metric="loss", confidence=0.975)
    saved = math.log(2) + np.log(sure)
    assert paired.gain.value == pytest.approx(saved.mean())
    half = 1.96 * saved.std() / 20
    assert (paired.gain.low, paired.gain.high) == pytest.approx(
        (saved.mean() - half, saved.mean() + half), abs=half / 5
    )
    assert (paired.only_first, paired.only_second) == ((labels == 1).sum(), 0)  # of equals the first class is chosen


def test_a_confusion_has_the_intervals_of_the_answers_it_counts():
    predicted = guesses(0.8)
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (LABELS, predicted), 1)
    found = confusion_interval(confusion.tolist(), metric="accuracy", confidence=0.95)
    assert found == wilson(int((predicted == LABELS).sum()), of=200, confidence=0.95)
    balanced = confusion_interval(confusion.tolist(), metric="balanced_accuracy", confidence=0.95)
    reference = score_interval(one_hot(predicted), labels=LABELS, metric="balanced_accuracy", confidence=0.95)
    assert balanced.value == pytest.approx(reference.value)
    # Other draws of the same answers: two hundredths.
    assert (balanced.low, balanced.high) == pytest.approx((reference.low, reference.high), abs=0.02)
    assert confusion_interval(confusion.tolist(), metric="loss", confidence=0.95) is None
