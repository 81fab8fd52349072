"""Which answers of a classifier are shown, by hand-worked cases."""

import numpy as np

from trainable.statistics.mistakes import (
    clustered,
    least_sure,
    most_confident_mistakes,
    most_confused,
    suspected_labels,
)

PROBABILITIES = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.97, 0.03], [0.6, 0.4]])
LABELS = np.array([0, 0, 1, 1, 1])


def test_mistakes_come_surest_first():
    assert most_confident_mistakes(PROBABILITIES, labels=LABELS).tolist() == [3, 4, 1]


def test_the_least_sure_have_their_two_likeliest_classes_nearest():
    assert least_sure(PROBABILITIES).tolist()[:2] == [1, 4]


def test_a_label_is_suspect_where_another_class_reaches_what_it_has_on_its_own_images():
    # Means over their own images: (0.9 + 0.45) / 2 = 0.675 of the first, (0.8 + 0.03 + 0.4) / 3 = 0.41 of the second.
    # 1: only the second class is seen, and its label is the first. 3: the first is seen. 4: neither is.
    assert suspected_labels(PROBABILITIES, labels=LABELS).tolist() == [3, 1]


def test_flipped_labels_of_a_good_classifier_are_what_is_suspected():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 400)
    probabilities = generator.dirichlet(np.ones(4), 400) * 0.3
    probabilities[np.arange(400), truth] += 0.7
    flipped = generator.choice(400, 20, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + 1) % 4
    found = suspected_labels(probabilities, labels=labels)
    assert set(found) <= set(flipped)  # the others have their own class for the likeliest
    assert len(found) >= 10  # those whose true class reaches its mean


def test_a_class_without_an_image_is_suspected_of_nothing():
    assert suspected_labels(np.array([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1]]), labels=np.array([0, 1])).tolist() == []


def test_the_most_confused_classes_are_those_with_most_mistakes_of_either_kind():
    confusion = np.array([[9, 0, 0, 1], [0, 5, 5, 0], [0, 0, 9, 0], [0, 0, 0, 9]])
    assert most_confused(confusion, limit=2).tolist() == [1, 2]
    assert most_confused(confusion, limit=9).tolist() == [0, 1, 2, 3]


def test_classes_that_are_confused_stand_together():
    confusion = 10 * np.eye(6, dtype=int)
    for one, other in ((0, 4), (1, 5), (2, 3)):
        confusion[one, other] = confusion[other, one] = 8
    places = {int(index): place for place, index in enumerate(clustered(confusion))}
    assert [abs(places[one] - places[other]) for one, other in ((0, 4), (1, 5), (2, 3))] == [1, 1, 1]
    assert clustered(np.array([[3, 1], [1, 3]])).tolist() == [0, 1]
