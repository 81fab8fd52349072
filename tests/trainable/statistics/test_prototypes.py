"""Class means as the weights of a cosine classifier, by hand and by scikit-learn's nearest centroid."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.neighbors import NearestCentroid

from trainable.statistics.prototypes import prototypes


def clouds(*, apart, num_classes=4, count=30, width=6):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), count)
    centres = apart * generator.standard_normal((num_classes, width))
    return (1 + centres[labels] + generator.standard_normal((len(labels), width))).astype(np.float32), labels


def directions(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_weights_are_the_directions_of_the_mean_of_features_of_length_1():
    features = np.array([[2, 0], [0, 5], [0, -3]], dtype=np.float32)
    weights, _ = prototypes(features, np.array([0, 0, 1]), num_classes=2)
    np.testing.assert_allclose(weights, [[0.5**0.5, 0.5**0.5], [0, -1]])


def test_the_nearest_class_is_that_of_the_nearest_centroid_of_features_of_length_1_but_for_the_centroids_lengths():
    features, labels = clouds(apart=1.0)
    weights, _ = prototypes(features, labels, num_classes=4)
    centroids = NearestCentroid().fit(directions(features), labels)
    centroids.centroids_ = directions(centroids.centroids_)
    assert ((directions(features) @ weights.T).argmax(axis=1) == centroids.predict(directions(features))).all()


def test_the_scale_is_the_best_for_images_left_out_of_their_classes_mean():
    features, labels = clouds(apart=0.7, count=6)
    _, scale = prototypes(features, labels, num_classes=4)
    unit = directions(features.astype(np.float64))

    def loss(scale):
        losses = []
        for left_out in range(len(labels)):
            kept = np.arange(len(labels)) != left_out
            means = [unit[kept & (labels == label)].mean(axis=0) for label in range(4)]
            losses.append(-np.log(softmax(scale * directions(np.array(means)) @ unit[left_out])[labels[left_out]]))
        return np.mean(losses)

    assert 1 < scale < 100
    assert loss(scale) < min(loss(0.95 * scale), loss(1.05 * scale))


def test_classes_that_are_further_apart_have_a_larger_scale():
    assert prototypes(*clouds(apart=3.0), num_classes=4)[1] > 2 * prototypes(*clouds(apart=0.5), num_classes=4)[1]


def test_a_class_without_images_is_never_the_nearest():
    features, labels = clouds(apart=1.0)
    weights, scale = prototypes(features, labels, num_classes=5)
    assert ((directions(features) @ weights.T).argmax(axis=1) != 4).all()
    assert weights[4] @ directions(features).mean(axis=0) < 0
    assert np.isfinite(scale)


@pytest.mark.parametrize("features", [np.zeros((3, 2)), np.ones((3, 2))])
def test_features_that_say_nothing_give_numbers(features):
    weights, scale = prototypes(features, np.array([0, 1, 1]), num_classes=2)
    assert np.isfinite(weights).all()
    assert np.isfinite(scale)
