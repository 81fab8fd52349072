"""Layers that go into packages: pools with weights of their own, by the means and maxima that they lie between."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from trainable.model.layers import AttentivePool, GeneralisedMean
from trainable.model.pool import POOLS

MAPS = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.01
POSITIONS = MAPS.flatten(2).transpose(1, 2)


def generalised_mean(exponent):
    pool = GeneralisedMean()
    with torch.no_grad():
        pool.exponent.fill_(exponent)
    return pool


def test_the_generalised_mean_of_exponent_3_is_the_cube_root_of_the_mean_cube():
    expected = avg_pool2d(MAPS**3, 4).flatten(1) ** (1 / 3)
    torch.testing.assert_close(GeneralisedMean()(POSITIONS), expected)


def test_the_generalised_mean_lies_between_mean_and_maximum_and_is_each_at_an_end():
    mean, most = avg_pool2d(MAPS, 4).flatten(1), max_pool2d(MAPS, 4).flatten(1)
    torch.testing.assert_close(generalised_mean(1.0)(POSITIONS), mean)
    torch.testing.assert_close(generalised_mean(1e4)(POSITIONS), most, rtol=1e-3, atol=0)
    between = GeneralisedMean()(POSITIONS)
    assert (mean < between).all()
    assert (between < most).all()


def test_an_exponent_below_1_counts_as_1_and_a_value_below_0_as_nearly_0():
    assert torch.equal(generalised_mean(-2.0)(POSITIONS), generalised_mean(1.0)(POSITIONS))
    torch.testing.assert_close(GeneralisedMean()(-POSITIONS), torch.full((3, 5), GeneralisedMean.LEAST))


@pytest.mark.parametrize("exponent", [1.0, 3.0, 200.0])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_features_and_gradients_of_the_generalised_mean_are_numbers_however_large_maps_and_exponent(exponent, scale):
    pool, positions = generalised_mean(exponent), (scale * POSITIONS).requires_grad_()
    features = pool(positions)
    features.sum().backward()
    for tensor in (features, positions.grad, pool.exponent.grad):
        assert torch.isfinite(tensor).all()


def test_the_gradient_of_the_generalised_mean_is_what_a_small_change_does():
    pool = GeneralisedMean().double()
    pool.float = lambda: pool
    exact = lambda x, p: x.pow(p).mean(dim=1).pow(1 / p)  # noqa: E731
    positions, exponent = POSITIONS.clone().requires_grad_(), torch.tensor([3.0], requires_grad=True)
    exact(positions, exponent).sum().backward()
    found = POSITIONS.clone().requires_grad_()
    generalised = GeneralisedMean()
    generalised(found).sum().backward()
    torch.testing.assert_close(found.grad, positions.grad)
    torch.testing.assert_close(generalised.exponent.grad, exponent.grad)


def test_an_attentive_pool_begins_as_the_mean_and_comes_to_the_position_that_its_query_is_like():
    pool, positions = AttentivePool(5), torch.eye(5)[None]
    torch.testing.assert_close(pool(positions), torch.full((1, 5), 0.2))
    with torch.no_grad():
        pool.query[2] = 100.0
    torch.testing.assert_close(pool(positions), torch.eye(5)[2:3])


def test_an_attentive_pool_is_torchs_attention_of_its_query():
    pool = AttentivePool(5)
    with torch.no_grad():
        pool.query.copy_(torch.randn(5, generator=torch.Generator().manual_seed(1)))
        expected = torch.nn.functional.scaled_dot_product_attention(
            pool.query.expand(3, 1, 5), POSITIONS, POSITIONS, dropout_p=0.0
        )
    torch.testing.assert_close(pool(POSITIONS), expected[:, 0])


@pytest.mark.parametrize("name", [name for name, pool in POOLS.items() if pool.learned is not None])
def test_it_trains_and_gives_float32_of_rounded_maps(name):
    pool = POOLS[name].learned(5)
    features = pool(POSITIONS.half())
    assert features.dtype == torch.float32
    (features * torch.arange(5)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in pool.parameters())
