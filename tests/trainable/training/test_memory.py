"""A batch in parts where it does not fit into memory."""

import pytest

from trainable import fit
from trainable.training.memory import halved


def test_half_a_batch_twice_is_the_same_update(make_config):
    # ConvNeXt has no batch norms.
    config = make_config(model={"name": "test_convnext"}, train={"epochs": 2, "batch_size": 8})
    less = halved(config)
    assert (less.train.batch_size, less.train.accumulate) == (4, 2)
    for whole, half in zip(fit(config), fit(less), strict=True):
        assert half.metrics["train/loss"] == pytest.approx(whole.metrics["train/loss"], rel=1e-4)
        assert half.metrics["val/loss"] == pytest.approx(whole.metrics["val/loss"], rel=1e-3)
        assert half.metrics["usage/batch_size"] == 4


@pytest.mark.parametrize(("batch_size", "accumulate"), [(9, 1), (2, 1), (32, 256)])
def test_a_batch_that_cannot_be_halved_is_left(make_config, batch_size, accumulate):
    assert halved(make_config(train={"batch_size": batch_size, "accumulate": accumulate})) is None
