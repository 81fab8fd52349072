"""Classifiers on pooled features, as they begin."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from trainable.config.trial import TrialConfig
from trainable.model.head import cool, create_head

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


def test_a_cosine_head_gives_ten_times_torchs_cosine_similarity_at_first():
    head = head_of("cosine").eval()
    expected = [[10 * cosine_similarity(one, row, dim=0).item() for row in head[-1].weight] for one in FEATURES]
    torch.testing.assert_close(head(FEATURES), torch.tensor(expected))


def test_neither_the_length_of_features_nor_that_of_a_classes_weights_counts_in_a_cosine_head():
    head = head_of("cosine").eval()
    before = head(FEATURES)
    with torch.no_grad():
        head[-1].weight[1] *= 50
    torch.testing.assert_close(head(7 * FEATURES), before)


def test_the_gradient_of_a_cosine_head_turns_weights_and_stretches_nothing_but_the_scale():
    head = head_of("cosine").eval()
    head(FEATURES)[:, 0].sum().backward()
    layer = head[-1]
    along = (layer.weight.grad * layer.weight).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(3), atol=1e-5, rtol=0)
    assert layer.weight.grad[0].abs().sum() > 0
    cosine = sum(cosine_similarity(one, layer.weight[0], dim=0).item() for one in FEATURES)
    assert layer.scale.grad.item() == pytest.approx(cosine, abs=1e-5)


def test_a_cosine_head_begins_with_logits_near_zero_and_is_finite_for_features_of_nothing():
    config = TrialConfig.model_validate({"model": {"head": "cosine"}})
    wide = create_head(config, width=512, num_classes=100, epoch=0).eval()
    assert wide(torch.randn(8, 512, generator=torch.Generator().manual_seed(0)).relu()).abs().max() < 2.5
    nothing = torch.zeros(2, 512, requires_grad=True)
    wide(nothing).sum().backward()
    assert torch.isfinite(nothing.grad).all()


@pytest.mark.parametrize("kind", ["linear", "mlp", "cosine"])
def test_a_head_that_is_cooled_gives_its_logits_over_the_temperature(kind):
    head = head_of(kind).eval()
    with torch.no_grad():
        for tensor in head[-1].parameters():
            tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)))
        before = head(FEATURES)
        cool(head, temperature=2.5)
        torch.testing.assert_close(head(FEATURES), before / 2.5)


def test_the_same_seed_turns_a_cosine_head_the_same_way_and_another_another():
    assert torch.equal(head_of("cosine")[1].weight, head_of("cosine")[1].weight)
    assert not torch.equal(head_of("cosine")[1].weight, head_of("cosine", seed=1)[1].weight)


@pytest.mark.parametrize(
    ("head", "finetune", "needed"),
    [
        ("mlp", {"strategy": "lp_ft"}, "linear or cosine"),
        ("cosine", {"strategy": "linear_probe", "solver": "lbfgs"}, "linear"),
        ("linear", {"strategy": "linear_probe", "solver": "prototypes"}, "cosine"),
    ],
)
def test_a_head_that_a_solution_is_not_of_is_refused(head, finetune, needed):
    with pytest.raises(ValueError, match=rf"needs model\.head: {needed}, got '{head}'"):
        TrialConfig.model_validate({"model": {"head": head}, "finetune": finetune})
