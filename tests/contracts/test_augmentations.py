"""What every augmentation keeps: a view is an image of the right shape that follows from seed, sample and epoch alone."""

import itertools

import numpy as np
import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.loader.augmentations import POLICIES, STRENGTHS
from trainable.loader.views import evaluation_view, varies, view, views

CHANNELS = (1, 3, 4)


def cases():
    for strength, policy, channels in itertools.product(STRENGTHS, (None, *POLICIES), CHANNELS):
        config = AugmentConfig(strength=strength, auto=policy, flip="both", rotate="quarter")
        yield pytest.param(config, channels, id=f"{strength}, {policy or 'its own policy'}, {channels} channels")


each = pytest.mark.parametrize(("config", "channels"), list(cases()))


def spec_of(channels):
    return InputSpec(
        size=16, mean=(0.5,) * channels, std=(0.25,) * channels, interpolation="bilinear", crop_share=0.875
    )


def noise(channels, *, seed=0, width=26):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, width, channels), dtype=np.uint8)
    pixels.flags.writeable = False  # as a pack's are
    return pixels


def look(config, channels, *, seed=0, sample_id=7, number=1):
    return view(noise(channels), config=config, spec=spec_of(channels), seed=seed, sample_id=sample_id, number=number)


@each
def test_it_is_an_image_of_the_networks_size_and_its_own_channels(config, channels):
    for number in range(8):
        shown = look(config, channels, number=number)
        assert (shown.shape, shown.dtype) == ((channels, 16, 16), torch.uint8)


@each
def test_it_follows_from_seed_sample_and_number_alone(config, channels):
    first = look(config, channels)
    torch.rand(3)
    look(config, channels, sample_id=3)
    assert torch.equal(look(config, channels), first)


@each
def test_other_seeds_samples_and_numbers_have_other_views_where_anything_varies(config, channels):
    plain = evaluation_view(noise(channels), spec_of(channels))
    for name in ("seed", "sample_id", "number"):
        shown = {look(config, channels, **{name: value}).numpy().tobytes() for value in range(8)}
        if varies(config, channels=channels):
            assert len(shown) >= 4  # a draw may leave an image as it is
        else:
            assert shown == {plain.numpy().tobytes()}


@each
def test_a_batch_is_its_images(config, channels):
    images = [noise(channels, seed=number, width=20 + number) for number in range(4)]
    common = {"config": config, "spec": spec_of(channels), "seed": 3, "number": 2}
    together = views(images, sample_ids=range(4), **common)
    for index in reversed(range(4)):
        assert torch.equal(together[index], view(images[index], sample_id=index, **common))


@each
def test_image_and_global_generator_are_as_they_were(config, channels):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    look(config, channels)
    assert torch.equal(torch.rand(4), expected)
    image = noise(channels)
    view(image, config=config, spec=spec_of(channels), seed=0, sample_id=0, number=1)
    assert np.array_equal(image, noise(channels))
