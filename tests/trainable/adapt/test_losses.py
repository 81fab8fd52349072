"""Losses between domains against skada's, numpy's and cases worked by hand."""

from math import exp, log

import pytest
import torch
from torch import nn

from trainable.adapt.losses import (
    bounded_strength,
    coral_loss,
    domain_loss,
    dynamic_strength,
    entropy_weights,
    ganin_strength,
    mcc_loss,
    mmd_loss,
    reverse_gradient,
)
from trainable.model.adapter import ConditionalMap, Discriminator, conditioned
from trainable.statistics.transferability import MMD_WIDTHS, mmd

BETWEEN = {
    "mmd": lambda source, target: mmd_loss(source, target, widths=MMD_WIDTHS),
    "mmd_fixed": lambda source, target: mmd_loss(source, target, widths=(0.5, 2.0), bandwidth=12.0),
    "coral": coral_loss,
}


@pytest.fixture
def skada_losses():
    return pytest.importorskip("skada.deep.losses", reason="needs skada: pip install 'skada[deep]'")


def sample(count, width=6, *, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, width, generator=generator)


class FirstFeature(nn.Module):
    """A discriminator whose logits a case can choose."""

    def forward(self, features):
        return features[:, 0]


@pytest.mark.parametrize("strength", [0.3, torch.tensor(0.3)])
def test_a_reversed_gradient_is_exactly_minus_the_strength_times_it(strength):
    features, weights = sample(5).requires_grad_(), sample(5, seed=1)
    reversed_ = reverse_gradient(features, strength=strength)
    assert torch.equal(reversed_, features)
    (reversed_ * weights).sum().backward()
    assert torch.equal(features.grad, -0.3 * weights)


def test_the_domain_loss_by_hand():
    """Target logits log 3 and 0 are probabilities 3/4 and 1/2; the source's logit 0 counts as right, the target's as wrong."""
    source, target = torch.tensor([[0.0]]), torch.tensor([[log(3)], [0.0]])
    loss, right = domain_loss(FirstFeature(), source, target)
    assert loss.item() == pytest.approx((log(2) + (log(4 / 3) + log(2)) / 2) / 2)
    assert right.item() == 0.75
    weighted, right = domain_loss(FirstFeature(), source, target, target_weights=torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((log(2) + (3 * log(4 / 3) + log(2)) / 4) / 2)
    assert right.item() == 0.75
    swapped, _ = domain_loss(FirstFeature(), -target, source, source_weights=torch.tensor([3.0, 1.0]))
    assert swapped.item() == pytest.approx(weighted.item())


def test_both_domains_have_the_same_say_whatever_their_sizes():
    source, target = sample(7), sample(3, seed=1, shift=0.5)
    loss, right = domain_loss(FirstFeature(), source, target)
    again, right_again = domain_loss(FirstFeature(), source, target.repeat(9, 1))
    assert again.item() == pytest.approx(loss.item())
    assert right_again.item() == pytest.approx(right.item())
    assert not right.requires_grad


def test_entropy_weights_by_hand():
    """1+exp(-0) = 2 for a certain prediction, 1+1/2 for a coin toss: over their mean of 7/4."""
    probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5]], requires_grad=True)
    weights = entropy_weights(probabilities)
    torch.testing.assert_close(weights, torch.tensor([8 / 7, 6 / 7]))
    assert not weights.requires_grad


def test_mmd_of_two_points_by_hand():
    """One distance, 25 squared: each has k = 1 with itself and k = exp(-1), (e⁻¹+e⁻²)/2 across."""
    source, target = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0]])
    assert mmd_loss(source, target, widths=(1.0,), bandwidth=25.0).item() == pytest.approx(2 - 2 * exp(-1))
    assert mmd_loss(source, target, widths=(1.0, 0.5)).item() == pytest.approx(2 - exp(-1) - exp(-2))


def test_mmd_is_that_of_numpy():
    """19 and 23 images have an odd number of pairs: the median is one of the distances."""
    source, target = sample(19), sample(23, seed=1, shift=0.4)
    expected = mmd(source.numpy(), target.numpy())
    assert mmd_loss(source, target, widths=MMD_WIDTHS).item() == pytest.approx(expected, abs=1e-6)


def test_mmd_of_identical_samples_is_zero_also_far_from_the_origin():
    features = sample(30, width=200, shift=100.0).requires_grad_()
    loss = mmd_loss(features, features.detach().clone(), widths=MMD_WIDTHS)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_mmd_of_copies_of_two_images_by_hand(shift):
    """One distance above 0, the median though most are 0: of shares 2/3, 1/3 and 1, 0 it is 2·(1/3)²·(1-e⁻¹)."""
    image, other = sample(1, width=30, shift=shift), sample(1, width=30, seed=1, shift=shift)
    source, target = torch.cat([image, image, other]), image.repeat(4, 1)
    assert mmd_loss(source, target, widths=(1.0,)).item() == pytest.approx(2 / 9 * (1 - exp(-1)), abs=1e-6)
    assert mmd_loss(target[:3], target, widths=(1.0,)).item() == pytest.approx(0, abs=1e-6)
    narrow = mmd_loss(source, target, widths=(1.0,), bandwidth=1e-7).item()
    assert narrow == pytest.approx(2 / 9, abs=1e-6)


def test_the_place_of_all_features_together_does_not_matter_to_mmd():
    source, target = sample(20), sample(20, seed=1, shift=0.4)
    expected = mmd_loss(source, target, widths=MMD_WIDTHS).item()
    assert mmd_loss(source + 1000, target + 1000, widths=MMD_WIDTHS).item() == pytest.approx(expected, abs=1e-4)


def test_the_median_distance_is_a_constant_to_the_gradient_of_mmd():
    source, target = sample(19).requires_grad_(), sample(23, seed=1, shift=2.0)
    median = torch.pdist(torch.cat([source, target]).detach()).square().median().item()
    (gradient,) = torch.autograd.grad(mmd_loss(source, target, widths=MMD_WIDTHS), source)
    (expected,) = torch.autograd.grad(mmd_loss(source, target, widths=MMD_WIDTHS, bandwidth=median), source)
    torch.testing.assert_close(gradient, expected)


def test_mmd_is_skadas_for_its_kernels(skada_losses):
    """Skada's kernels are exp(-d/σ), of distances not squared, and summed, not averaged.

    Distances D between points are the squared distances between others, which classical scaling finds: the Gaussian
    kernels of these are skada's of the former.
    """
    source, target, sigmas = sample(12), sample(9, seed=1, shift=0.7), [0.5, 1.5, 4.0]
    expected = skada_losses.dan_loss(source, target, sigmas=sigmas).item()
    both = torch.cat([source, target]).double()
    distances = torch.cdist(both, both)
    centring = torch.eye(21, dtype=torch.float64) - 1 / 21
    values, vectors = torch.linalg.eigh(-centring @ distances @ centring / 2)
    scaled = vectors * values.clamp(min=0).sqrt()
    loss = mmd_loss(scaled[:12], scaled[12:], widths=sigmas, bandwidth=1.0)
    assert 3 * loss.item() == pytest.approx(expected, abs=1e-5)
    assert expected > 0.1


def test_coral_by_hand():
    """Covariances diag(2, 0) and diag(0, 8): (2²+8²)/(4·2²)."""
    source, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert coral_loss(source, target).item() == pytest.approx(4.25)
    assert coral_loss(source + 7, target).item() == pytest.approx(4.25)


def test_coral_is_skadas_with_its_gradient(skada_losses):
    source, target = sample(20).requires_grad_(), sample(30, seed=1, scale=2.0)
    ours, theirs = coral_loss(source, target), skada_losses.deepcoral_loss(source, target)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    (gradient,), (expected,) = torch.autograd.grad(ours, source), torch.autograd.grad(theirs, source)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", BETWEEN)
def test_a_descent_brings_the_domains_together(name):
    source, target = sample(30, shift=1.0, scale=2.0).requires_grad_(), sample(30, seed=1)
    optimizer = torch.optim.Adam([source], lr=0.05)
    first = BETWEEN[name](source, target).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = BETWEEN[name](source, target)
        loss.backward()
        optimizer.step()
    assert 0 <= loss.item() < 0.2 * first


def test_class_confusion_by_hand():
    certain = 200 * torch.eye(3).repeat(4, 1)
    assert mcc_loss(certain, temperature=1.0).item() == pytest.approx(0, abs=1e-6)
    assert mcc_loss(torch.zeros(8, 4), temperature=1.0).item() == pytest.approx(3 / 4)
    assert mcc_loss(torch.tensor([[300.0, 0.0]] * 5), temperature=1.0).item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_class_confusion_is_skadas(skada_losses, temperature):
    logits = sample(40, width=5, scale=2.0)
    expected = skada_losses.mcc_loss(logits, T=temperature).item()
    assert mcc_loss(logits, temperature=temperature).item() == pytest.approx(expected, abs=1e-5)
    assert expected > 0.1


def test_class_confusion_has_a_gradient_that_lowers_it_and_is_finite_for_extreme_logits():
    logits = sample(40, width=5).requires_grad_()
    loss = mcc_loss(logits, temperature=2.5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert mcc_loss(logits - 20 * gradient, temperature=2.5) < loss
    for scale in (40.0, 80.0, 1e4):
        extreme = (scale * logits.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(mcc_loss(extreme, temperature=1.0), extreme)
        assert gradient.isfinite().all()


def test_ganins_strength_by_hand():
    """exp(-log 3) = 1/3, so that half way there is at progress 1 for γ = log 3."""
    assert ganin_strength(0.0, gamma=10.0) == 0
    assert ganin_strength(1.0, gamma=log(3)) == pytest.approx(0.5)
    assert 1 - 1e-4 < ganin_strength(1.0, gamma=10.0) < 1


def test_the_dynamic_strength_by_hand():
    """Means 1 and 3 with a deviation of 1 each are 2 apart."""
    source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [4.0]], requires_grad=True)
    strength = dynamic_strength(source, target, scale=1.5)
    assert strength.item() == pytest.approx(1 / (1 + exp(-3)))
    assert not strength.requires_grad
    assert dynamic_strength(source, source, scale=1.5).item() == 0.5
    assert dynamic_strength(torch.zeros(2, 3), torch.zeros(2, 3), scale=1.5).item() == 0.5
    assert dynamic_strength(torch.zeros(2, 3), torch.ones(2, 3), scale=1.5).item() == 1


@pytest.mark.parametrize(
    ("term", "loss", "expected"), [(2.0, 0.5, 0.25), (0.5, 2.0, 1.0), (0.0, 0.3, 1.0), (1.0, 0.0, 0.0)]
)
def test_a_bounded_term_counts_for_no_more_than_the_loss(term, loss, expected):
    term = torch.tensor(term, requires_grad=True)
    strength = bounded_strength(term, by=torch.tensor(loss, requires_grad=True))
    assert strength.item() == pytest.approx(expected)
    assert not strength.requires_grad


def test_neither_the_width_nor_the_scale_nor_the_size_of_samples_changes_the_dynamic_strength():
    source, target = sample(20), sample(20, seed=1, shift=0.5)
    expected = dynamic_strength(source, target, scale=2.0).item()
    assert 0.6 < expected < 0.9
    for change in (lambda x: 1000 * x, lambda x: 0.001 * x, lambda x: x.repeat(1, 50), lambda x: x.repeat(3, 1)):
        assert dynamic_strength(change(source), change(target), scale=2.0).item() == pytest.approx(expected, abs=1e-5)
    assert dynamic_strength(target, source, scale=2.0).item() == pytest.approx(expected, abs=1e-6)
    further = dynamic_strength(source, target + 1, scale=2.0).item()
    assert further > expected


def autocast_terms(source, target):
    torch.manual_seed(0)
    discriminator = Discriminator(6, hidden=8, dropout=0.0)
    wide = ConditionalMap(6, 700, seed=0)
    return {
        **{name: between(source, target) for name, between in BETWEEN.items()},
        "domain": domain_loss(discriminator, source, target)[0],
        "mcc": mcc_loss(source, temperature=2.0),
        "conditioned": conditioned(source, target),
        "wide": wide(source, torch.softmax(source.repeat(1, 117)[:, :700].float(), dim=1)),
        "weights": entropy_weights(torch.softmax(source.float(), dim=1)),
        "dynamic": dynamic_strength(source, target, scale=1.0),
        "bounded": bounded_strength(source.mean().exp(), by=target.mean().exp()),
    }


def test_everything_is_float32_inside_autocast_and_of_half_precision_features():
    source, target = sample(16), sample(16, seed=1, shift=0.5)
    outside = autocast_terms(source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = autocast_terms(source, target)
        rounded = autocast_terms(source.bfloat16(), target.bfloat16())
    for name, value in outside.items():
        assert torch.equal(inside[name], value), name
        assert rounded[name].dtype == torch.float32, name
