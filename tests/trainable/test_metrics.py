from math import inf, nan

import pytest

from trainable.metrics import DIRECTIONS, epochs_to_converge


def test_a_negative_best_value_is_neared_from_its_own_side():
    assert epochs_to_converge({1: 0.2, 2: -0.3}, metric="target/dev") == 2
    assert epochs_to_converge({1: -0.2, 2: -0.39, 3: -0.4}, metric="target/dev") == 2
    assert epochs_to_converge({1: -0.8, 2: -0.41, 3: -0.4}, metric="target/infomax") == 2
    assert epochs_to_converge({1: -1.0, 2: -2e-16}, metric="target/infomax") == 2


@pytest.mark.parametrize("metric", DIRECTIONS)
@pytest.mark.parametrize("best", [-inf, -1.0, -2e-16, -0.0, 0.0, 2e-16, 1.0, inf, nan])
def test_some_epoch_has_come_near_the_best_value_whatever_it_is(metric, best):
    for others in ([], [0.5], [-0.5, 0.0], [inf], [-inf]):
        values = dict(enumerate([best, *others], start=1))
        assert epochs_to_converge(values, metric=metric) in values
