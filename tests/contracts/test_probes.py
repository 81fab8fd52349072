"""What every probe's classifier keeps: probabilities, for classes it never saw as well, that tell what can be told."""

from typing import get_args

import numpy as np
import pytest

from search.space.spec import SearchSpec
from trainable.statistics.probe import CLASSIFIERS, fit_probe

each = pytest.mark.parametrize("kind", CLASSIFIERS)


def clouds(*, num_classes, apart=1.0, count=60, seed=0):
    """Overlapping Gaussian clouds, one a class, whose seven features differ in place and scale."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), count // num_classes)
    centres = apart * np.random.default_rng(99).standard_normal((num_classes, 7))
    points = centres[labels] + generator.standard_normal((len(labels), 7))
    return (points * np.logspace(-2, 2, 7) + np.linspace(-5, 5, 7)).astype(np.float32), labels


def test_those_that_can_be_asked_for_are_those_there_are():
    (names,) = get_args(SearchSpec.model_fields["probes"].annotation)
    assert set(get_args(names)) == set(CLASSIFIERS)


@each
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_it_tells_clouds_apart_and_gives_probabilities(kind, num_classes):
    features, labels = clouds(num_classes=num_classes, apart=5.0)
    probabilities = fit_probe(features, labels, kind=kind).probabilities(features, num_classes=num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert probabilities.shape == (len(labels), num_classes)
    assert (probabilities >= 0).all()
    assert (probabilities.argmax(axis=1) == labels).all()


@each
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_on_images_it_has_not_seen_it_is_far_better_than_chance(kind, num_classes):
    probe = fit_probe(*clouds(num_classes=num_classes, count=120), kind=kind)
    features, labels = clouds(num_classes=num_classes, count=120, seed=1)
    right = probe.probabilities(features, num_classes=num_classes).argmax(axis=1) == labels
    assert right.mean() > 1 / num_classes + 0.2


@each
@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_likeliest_class_is_the_one_the_classifier_names(kind, num_classes):
    features, labels = clouds(num_classes=num_classes, apart=0.4)
    probe = fit_probe(features, labels, kind=kind)
    named = probe.pipeline.predict(features)
    assert (probe.probabilities(features, num_classes=num_classes).argmax(axis=1) == named).all()
    assert (named != labels).any()


@each
def test_a_class_that_was_never_seen_has_no_probability(kind):
    features, labels = clouds(num_classes=2, apart=5.0)
    probabilities = fit_probe(features, labels * 2, kind=kind).probabilities(features, num_classes=4)
    assert probabilities.shape == (60, 4)
    assert (probabilities[:, [1, 3]] == 0).all()
    assert (probabilities.argmax(axis=1) == labels * 2).all()


@each
def test_the_scale_of_a_feature_is_nothing_to_it(kind):
    """A power of two is exact in float32; what a solver makes of other last bits of the scaler stays below 10⁻³."""
    features, labels = clouds(num_classes=3)
    scales = np.array([2.0**power for power in (-8, -4, -1, 0, 1, 4, 8)], dtype=np.float32)
    plain, scaled = (
        fit_probe(one, labels, kind=kind).probabilities(one, num_classes=3) for one in (features, features * scales)
    )
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


@each
def test_the_same_images_give_the_same_probe(kind):
    features, labels = clouds(num_classes=3)
    first, again = (fit_probe(features, labels, kind=kind).probabilities(features, num_classes=3) for _ in range(2))
    assert np.array_equal(first, again)
