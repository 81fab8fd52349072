"""References are torchvision's operations on one image, and cases worked by hand."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from trainable.loader import pixels
from trainable.loader.crops import Boxes

FACTORS = np.array([0.3, 0.8, 1.0, 1.7])
FILL = torch.tensor([9, 8, 7], dtype=torch.uint8).view(1, -1, 1, 1)


def noise(channels=3, count=4):
    return torch.randint(
        0, 256, (count, channels, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (pixels.brightness, functional.adjust_brightness),
        (pixels.contrast, functional.adjust_contrast),
        (pixels.saturation, functional.adjust_saturation),
        (pixels.sharpness, functional.adjust_sharpness),
    ],
)
def test_each_image_is_changed_by_its_own_factor(change, reference, channels):
    images = noise(channels)
    changed = change(images.clone(), FACTORS)
    for shown, image, factor in zip(changed, images, FACTORS.tolist(), strict=True):
        expected = reference(image, factor)
        steps = (
            2 if change is pixels.saturation else 1
        )  # torchvision cuts off, and rounds each pixel's grey before that
        assert (shown.int() - expected.int()).abs().max() <= steps
    assert torch.equal(changed[2], images[2])


def test_each_image_has_its_own_bits_and_threshold():
    images = noise()
    for shown, image, bits in zip(
        pixels.posterise(images, np.array([0.0, 3, 6, 8])), images, (0, 3, 6, 8), strict=True
    ):
        assert torch.equal(shown, functional.posterize(image, bits) if bits else torch.zeros_like(image))
    inverted = pixels.solarise(images, np.array([0.0, 0.25, 0.5, 1.0]))
    for shown, image, threshold in zip(inverted, images, (0.0, 63.75, 127.5, 255.0), strict=True):
        assert torch.equal(shown, functional.solarize(image, threshold))


def test_levels_are_stretched_and_evened_image_by_image():
    images = noise() // 2 + torch.tensor([0, 20, 40, 60], dtype=torch.uint8).view(-1, 1, 1, 1)
    nothing = np.zeros(4)
    for shown, image in zip(pixels.autocontrast(images, nothing), images, strict=True):
        assert torch.equal(shown, functional.autocontrast(image))
    for shown, image in zip(pixels.equalise(images, nothing), images, strict=True):
        assert torch.equal(shown, functional.equalize(image))


def test_images_move_by_whole_pixels_and_what_comes_in_is_the_fill():
    images = noise(count=3)
    matrices = np.array([[1, 0, 2, 0, 1, 0], [1, 0, 0, 0, 1, -3], [0, 1, 0, 1, 0, 0]], dtype=float)
    moved = pixels.move(images, matrices, fill=FILL)
    assert torch.equal(moved[0, :, :, :-2], images[0, :, :, 2:])
    assert torch.equal(moved[1, :, 3:], images[1, :, :-3])
    assert torch.equal(moved[2], images[2].transpose(1, 2))
    for edge in (moved[0, :, :, -2:], moved[1, :, :3]):
        assert torch.equal(edge, FILL[0].expand_as(edge))


def test_a_box_is_erased_in_each_image():
    images = noise(count=2)
    erased = pixels.erase(images, Boxes(*np.array([[1, 0], [2, 4], [3, 12], [5, 1]])), fill=FILL)
    expected = images.clone()
    expected[0, :, 1:4, 2:7] = FILL[0]
    expected[1, :, :, 4:5] = FILL[0]
    assert torch.equal(erased, expected)


@pytest.mark.parametrize("where", [[], [1, 3], [0, 1, 2, 3]])
def test_those_chosen_are_changed_and_the_others_left(where):
    images, chosen = noise(), np.isin(np.arange(4), where)
    before, seen = images.clone(), []

    def invert(some, at):
        seen.extend(at.tolist())
        return 255 - some

    changed = pixels.on_some(images, chosen, invert)
    for number in range(4):
        assert torch.equal(changed[number], 255 - before[number] if number in where else before[number])
    assert seen == where


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", [pixels.brightness, pixels.contrast, pixels.saturation, pixels.sharpness])
def test_a_gpu_changes_pixels_as_a_cpu_does(change):
    assert torch.equal(change(noise().cuda(), FACTORS).cpu(), change(noise(), FACTORS))
