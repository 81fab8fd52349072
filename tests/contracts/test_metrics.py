"""What every metric keeps: one name and direction, one function, and the same names wherever one may be given."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from search.space.promotion_sections import GateSection
from trainable.config.trial import MetricName
from trainable.metrics import DIRECTIONS, SCORES, UNLABELLED
from trainable.statistics import comparison, scores, selectors

GUIDE = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text()
LABELS = np.arange(30) % 3
RIGHT = 0.9 * np.eye(3)[LABELS] + 0.1 / 3


def test_a_trial_takes_exactly_the_metrics_that_may_drive_a_search():
    assert get_args(MetricName) == tuple(DIRECTIONS)


def test_every_metric_has_its_function():
    assert list(scores.SCORES) == list(SCORES)
    assert list(selectors.FUNCTIONS) == list(UNLABELLED)


def test_networks_are_compared_by_the_metrics_that_can_compare_them():
    names = [name for name, metric in (SCORES | UNLABELLED).items() if metric.compares]
    assert list(comparison.METRICS) == names
    assert list(get_args(GateSection.model_fields["metric"].annotation)) == names
    assert {SCORES[name].direction for name in names} == {"maximize"}  # as a gain is what is compared


@pytest.mark.parametrize("name", UNLABELLED)
def test_the_guide_names_what_needs_no_labels(name):
    assert f"`target/{name}`" in GUIDE


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_better_for_right_predictions_than_for_wrong_ones(name):
    sign = 1 if SCORES[name].direction == "maximize" else -1
    right, wrong = (
        scores.score(probabilities, labels=LABELS, classes="abc").metrics[name]
        for probabilities in (RIGHT, RIGHT[:, [1, 2, 0]])
    )
    assert sign * right > sign * wrong


@pytest.mark.parametrize("name", [name for name, metric in SCORES.items() if metric.compares])
def test_a_comparison_computes_the_score_itself(name):
    predicted = np.random.default_rng(0).integers(0, 3, 30)
    found = comparison.METRICS[name](LABELS, predicted, num_classes=3)
    expected = scores.score(np.eye(3)[predicted], labels=LABELS, classes="abc").metrics[name]
    assert float(found) == pytest.approx(expected, rel=1e-12)
