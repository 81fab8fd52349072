"""Images moved towards another domain, against the papers' formulas and cases worked by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from trainable.adapt.perturb import fourier_swapped, towards


def images(*, count=2, height=16, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 40 + 170 * torch.rand(count, 3, height, width, generator=generator)


def swapped_as_in_the_paper(source, target, *, reach):
    """Yang and Soatto's eq. 3 with centred spectra, one image and channel at a time."""
    of_source, of_target = (np.fft.fftshift(np.fft.fft2(image)) for image in (source, target))
    row, column = source.shape[0] // 2, source.shape[1] // 2
    block = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    amplitude, phase = np.abs(of_source), np.angle(of_source)
    amplitude[block] = np.abs(of_target)[block]
    return np.clip(np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real, 0, 255)


@pytest.mark.parametrize(
    ("beta", "height", "width", "reach"), [(0.1, 20, 20, 2), (0.13, 15, 31, 1), (0.25, 17, 12, 3), (0.5, 16, 16, 8)]
)
def test_the_centred_block_of_amplitudes_is_swapped_as_in_the_paper(beta, height, width, reach):
    source, target = images(height=height, width=width), images(height=height, width=width, seed=1) * 0.5
    swapped = fourier_swapped(source, target, beta=beta).numpy()
    for image in range(2):
        for channel in range(3):
            planes = source[image, channel].double().numpy(), target[image, channel].double().numpy()
            expected = swapped_as_in_the_paper(*planes, reach=reach)
            np.testing.assert_allclose(swapped[image, channel], expected, atol=1e-2)  # float32 of values up to 65 000


def test_without_a_block_the_source_comes_back():
    source, target = images(), images(seed=1)
    for beta in (0.0, 0.06):  # 0.96 periods
        torch.testing.assert_close(fourier_swapped(source, target, beta=beta), source, atol=1e-3, rtol=0)
    assert (fourier_swapped(source, target, beta=0.07) - source).abs().max() > 1


def test_a_target_of_the_same_images_changes_nothing():
    source = images()
    torch.testing.assert_close(fourier_swapped(source, source, beta=0.3), source, atol=1e-3, rtol=0)


def test_the_brightness_is_the_targets_and_stays_in_range():
    dark, bright = torch.full((1, 3, 8, 8), 20.0), torch.full((1, 3, 8, 8), 200.0)
    torch.testing.assert_close(fourier_swapped(dark, bright, beta=0.2), bright, atol=1e-3, rtol=0)
    checks = 255.0 * (torch.arange(8)[:, None] + torch.arange(8) > 7).float().expand(1, 3, 8, 8)
    assert (fourier_swapped(checks, bright, beta=0.2) == 255).any()
    assert fourier_swapped(checks, bright, beta=0.2).min() >= 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64])
def test_images_of_any_type_come_back_in_float32(dtype):
    source, target = images().round().to(dtype), images(seed=1).round().to(dtype)
    swapped = fourier_swapped(source, target, beta=0.2)
    assert torch.equal(swapped, fourier_swapped(source.float(), target.float(), beta=0.2))
    assert swapped.dtype == torch.float32


LOW, HIGH = torch.tensor([-2.0, -1.0, -1.5]).view(3, 1, 1), torch.tensor([2.0, 2.5, 3.0]).view(3, 1, 1)
EPS = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)


def normalised(*, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LOW + (HIGH - LOW) * torch.rand(4, 3, 6, 6, generator=generator)


def test_one_step_is_that_of_the_fast_gradient_sign():
    start = torch.zeros(1, 3, 6, 6)
    slopes = normalised(seed=1)[:1]
    moved = towards(start, score=lambda x: (slopes * x).sum(), eps=EPS, steps=1, low=LOW, high=HIGH)
    assert torch.equal(moved, -EPS * slopes.sign())


@pytest.mark.parametrize("steps", [1, 5])
def test_images_stay_in_the_ball_and_in_range_while_the_score_falls(steps):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))
    start = normalised()
    with torch.no_grad():
        moved = towards(start, score=lambda x: network(x).mean(), eps=EPS, steps=steps, low=LOW, high=HIGH)
    assert network(moved).mean() < network(start).mean() - 0.05
    assert ((moved - start).abs() <= EPS + 1e-6).all()
    assert ((moved >= LOW) & (moved <= HIGH)).all()
    assert ((start - EPS < LOW) & (moved == LOW)).any()
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_several_steps_come_nearer_than_one_that_oversteps():
    """The least score is 0.02 away, one step goes 0.1; five of 0.05 end within one of it."""
    start, goal = torch.zeros(1, 3, 6, 6), torch.full((1, 3, 6, 6), 0.02)
    bounds = {"low": torch.tensor(-1.0), "high": torch.tensor(1.0), "eps": 0.1}
    near = towards(start, score=lambda x: (x - goal).square().sum(), steps=5, **bounds)
    far = towards(start, score=lambda x: (x - goal).square().sum(), steps=1, **bounds)
    torch.testing.assert_close(far, torch.full_like(far, 0.1))
    assert ((near - goal).abs() <= 0.05).all()


def test_many_steps_reach_the_edge_of_the_ball():
    start = torch.zeros(1, 3, 6, 6)
    moved = towards(start, score=lambda x: -x.sum(), eps=EPS, steps=3, low=LOW, high=HIGH)
    torch.testing.assert_close(moved, EPS.expand_as(moved))
