"""Classifiers on pooled features, as they begin."""

import pytest
import torch

from trainable.config.trial import TrialConfig
from trainable.model.head import create_head

FEATURES = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def head_of(kind, *, seed=0, epoch=0, **model):
    config = TrialConfig.model_validate({"seed": seed, "model": {"head": kind, "head_hidden": 8} | model})
    return create_head(config, width=6, num_classes=3, epoch=epoch)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_begins_at_zero_logits(kind):
    assert head_of(kind)(FEATURES).tolist() == [[0.0] * 3] * 4


def test_its_start_depends_on_the_seed_and_the_epoch_and_on_no_number_drawn_before():
    start = head_of("mlp")[0].weight
    torch.rand(1)
    assert torch.equal(head_of("mlp")[0].weight, start)
    assert not torch.equal(head_of("mlp", seed=1)[0].weight, start)
    assert not torch.equal(head_of("mlp", epoch=3)[0].weight, start)
