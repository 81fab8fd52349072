import torch

from trainable.adapt.losses import (
    domain_loss,
    reverse_gradient,
)
from trainable.model.adapter import LARGEST_MAP, RANDOM_WIDTH, ConditionalMap, Discriminator, conditioned


def sample(count, width=6, *, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, width, generator=generator)


def test_a_discriminator_learns_to_tell_domains_apart_while_what_is_below_a_reversal_learns_the_opposite():
    torch.manual_seed(0)
    source, target = sample(40, shift=-1.0), sample(40, seed=1, shift=1.0)
    discriminator = Discriminator(6, hidden=16, dropout=0.0)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = domain_loss(discriminator, source, target)
        loss.backward()
        optimizer.step()
    loss, right = domain_loss(discriminator, source, target)
    assert loss < 0.05
    assert right == 1
    moving = source.clone().requires_grad_()
    domain_loss(discriminator, reverse_gradient(moving, strength=1.0), target)[0].backward()
    assert domain_loss(discriminator, moving - 20 * moving.grad, target)[0] > loss


def test_a_discriminator_drops_out_in_training_only():
    torch.manual_seed(0)
    discriminator, features = Discriminator(6, hidden=16, dropout=0.5), sample(4)
    assert discriminator(features).shape == (4,)
    assert not torch.equal(discriminator(features), discriminator(features))
    discriminator.eval()
    assert torch.equal(discriminator(features), discriminator(features))


def test_the_multilinear_map_by_hand():
    features, probabilities = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.25, 0.75]])
    assert conditioned(features, probabilities).tolist() == [[0.25, 0.75, 0.5, 1.5, -0.75, -2.25]]


def test_a_conditional_map_is_the_whole_one_up_to_its_largest_width():
    features, probabilities = sample(3, width=1024), torch.softmax(sample(3, width=4), dim=1)
    whole = ConditionalMap(1024, 4, seed=0)
    assert whole.out_width == LARGEST_MAP == 4096
    assert torch.equal(whole(features, probabilities), conditioned(features, probabilities))
    assert ConditionalMap(1024, 5, seed=0).out_width == RANDOM_WIDTH


def test_a_wide_conditional_map_keeps_inner_products_and_is_fixed_by_its_seed():
    """The inner product of two images deviates by √(8/1024) = 0.09 of their lengths at most, where they are one image."""
    features, probabilities = sample(64, width=2000), torch.softmax(sample(64, width=5, seed=1), dim=1)
    random = ConditionalMap(2000, 5, seed=3)
    mapped, whole = random(features, probabilities), conditioned(features, probabilities)
    assert mapped.shape == (64, random.out_width)
    lengths = whole.norm(dim=1)
    errors = (mapped @ mapped.T - whole @ whole.T) / (lengths[:, None] * lengths)
    assert errors.square().mean().sqrt() < 0.09
    assert errors.diagonal().mean().abs() < 0.09
    assert torch.equal(mapped, ConditionalMap(2000, 5, seed=3)(features, probabilities))
    assert not torch.allclose(mapped, ConditionalMap(2000, 5, seed=4)(features, probabilities))
    assert not list(random.parameters())
