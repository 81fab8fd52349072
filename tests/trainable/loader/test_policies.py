import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from trainable.config.trial import AugmentConfig
from trainable.loader.draws import draws_for
from trainable.loader.policies import AUGMIX, CHANGES, RANDAUGMENT, TRIVIAL, augmix, randaugment, trivial

FILL = torch.full((1, 3, 1, 1), 7, dtype=torch.uint8)


def noise(count=4, size=16):
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("policy", [randaugment, trivial, augmix])
def test_images_together_are_what_each_is_alone(policy):
    images, config = noise(24), AugmentConfig()
    together = policy(images.clone(), draws_for(range(24), seed=3, number=1), config, FILL)
    for number in range(24):
        alone = policy(images[number : number + 1].clone(), draws_for([number], seed=3, number=1), config, FILL)
        assert torch.equal(alone[0], together[number])
    assert len({one.numpy().tobytes() for one in together}) > 20


@pytest.mark.parametrize("name", list(CHANGES))
def test_each_change_is_by_the_magnitude_of_its_image(name):
    images, magnitudes = noise(), np.array([0.0, 1.0, 2.0, 4.0])
    together = CHANGES[name](images.clone(), magnitudes, FILL)
    for number in range(4):
        alone = CHANGES[name](images[number : number + 1].clone(), magnitudes[number : number + 1], FILL)
        assert torch.equal(alone[0], together[number])


def test_a_turn_is_about_the_middle_and_by_degrees():
    images = noise()
    turned = CHANGES["rotate"](images, np.array([0.0, 90.0, 180.0, -90.0]), FILL)
    for shown, image, quarters in zip(turned, images, (0, 1, 2, 3), strict=True):
        assert torch.equal(shown, torch.rot90(image, quarters, dims=(1, 2)))


@pytest.mark.parametrize("degrees", [17.0, -41.0])
def test_a_turn_by_less_is_torchvisions(degrees):
    image = noise(1, 32)
    shown = CHANGES["rotate"](image, np.array([degrees]), FILL)
    expected = functional.rotate(image, degrees, fill=7)
    assert (shown == expected).float().mean() > 0.98  # the nearest pixel is another where two are as near


@pytest.mark.parametrize("ranges", [RANDAUGMENT, TRIVIAL, AUGMIX])
def test_every_policy_has_operations_that_there_are(ranges):
    assert set(ranges) | {"identity"} == set(CHANGES)


def test_randaugment_changes_more_with_more_operations_and_magnitude():
    images = noise(64)

    def change(**fields):
        shown = randaugment(images.clone(), draws_for(range(64), seed=0, number=1), AugmentConfig(**fields), FILL)
        return float((shown.int() - images.int()).abs().float().mean())

    assert change(auto_ops=1, auto_magnitude=3) < change(auto_ops=1, auto_magnitude=25)
    assert change(auto_ops=1, auto_magnitude=9) < change(auto_ops=3, auto_magnitude=9)


def test_every_operation_is_drawn_about_as_often():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4200, 3, 16, 16).contiguous()
    shown = trivial(images.clone(), draws_for(range(4200), seed=0, number=1), AugmentConfig(), FILL)
    unchanged = (shown == images).flatten(1).all(dim=1).float().mean()
    assert 4 / 14 < float(unchanged) < 6 / 14  # identity, what leaves such an image as it is, and small magnitudes


def test_augmix_keeps_a_part_of_the_image():
    images = torch.full((200, 3, 8, 8), 200, dtype=torch.uint8)
    shown = augmix(images.clone(), draws_for(range(200), seed=0, number=1), AugmentConfig(), FILL).float()
    assert 60 < float(shown.mean()) < 200
    assert float(shown.std()) > 5
