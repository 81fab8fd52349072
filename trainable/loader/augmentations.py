"""The operations that vary a training image, in the order in which they are applied."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from trainable.config.techniques import COLOUR_CHANNELS
from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec

INTERPOLATION = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.BICUBIC,  # torch has no Lanczos for tensors
}


@dataclass(frozen=True, kw_only=True)
class Strength:
    """What ``augment.strength`` stands for.

    ``smallest_crop`` is a share of the image's area, None for the evaluation view without crops, flips or turns; ``jitter`` the
    largest relative change of brightness, contrast and saturation; ``policy`` and ``erase``, a probability, hold where
    ``augment.auto`` and ``augment.erase`` name none.
    """

    smallest_crop: float | None
    jitter: float = 0.0
    policy: str = "none"
    erase: float = 0.0


STRENGTHS = {
    "none": Strength(smallest_crop=None),
    "symmetries": Strength(smallest_crop=None),
    "light": Strength(smallest_crop=0.5),
    "medium": Strength(smallest_crop=0.5, jitter=0.2),
    "strong": Strength(smallest_crop=0.25, jitter=0.4, policy="randaugment", erase=0.5),
}


def _randaugment(config: AugmentConfig, fill: list[float]) -> v2.Transform:
    return v2.RandAugment(num_ops=config.auto_ops, magnitude=config.auto_magnitude, fill=fill)


def _trivial(_config: AugmentConfig, fill: list[float]) -> v2.Transform:
    return v2.TrivialAugmentWide(fill=fill)


def _augmix(_config: AugmentConfig, fill: list[float]) -> v2.Transform:
    return v2.AugMix(fill=fill)


# Policies of random operations, which know grey and colour only; ``fill`` is what moves in from outside, one number a channel.
POLICIES: dict[str, Callable[[AugmentConfig, list[float]], v2.Transform] | None] = {
    "none": None,
    "randaugment": _randaugment,
    "trivial": _trivial,
    "augmix": _augmix,
}


def crops(config: AugmentConfig) -> bool:
    """Whether the operations begin with the whole image, from which they cut, and not with the evaluation view."""
    return STRENGTHS[config.strength].smallest_crop is not None


def symmetries(config: AugmentConfig) -> list[tuple[int, list[int]]]:
    """The flips and turns that a subject allows, each once: quarter turns after flips over these axes of an image."""
    turns = range(4) if config.rotate == "quarter" else range(1)
    flips: list[list[int]] = [[]] if config.flip == "none" else [[], [-1]]
    if config.flip == "both" and config.rotate == "none":  # a half turn is both flips
        flips += [[-2], [-2, -1]]
    return [(turn, axes) for turn in turns for axes in flips]


def _crop(config: AugmentConfig, spec: InputSpec) -> v2.Transform:
    scale = (STRENGTHS[config.strength].smallest_crop, 1.0)
    return v2.RandomResizedCrop(spec.size, scale=scale, interpolation=INTERPOLATION[spec.interpolation])


def _jitter(config: AugmentConfig, _spec: InputSpec) -> v2.Transform:
    return v2.ColorJitter(*[STRENGTHS[config.strength].jitter] * 3)


def _policy(config: AugmentConfig, spec: InputSpec) -> v2.Transform:
    policy = POLICIES[_policy_name(config)]
    assert policy is not None
    return policy(config, _mean_pixel(spec))


def _policy_name(config: AugmentConfig) -> str:
    return config.auto or STRENGTHS[config.strength].policy


def _erasing(config: AugmentConfig, spec: InputSpec) -> v2.Transform:
    return v2.RandomErasing(p=_erase_probability(config), value=_mean_pixel(spec))


def _erase_probability(config: AugmentConfig) -> float:
    return STRENGTHS[config.strength].erase if config.erase is None else config.erase


def _mean_pixel(spec: InputSpec) -> list[float]:
    return [255 * value for value in spec.mean]


def _quarter_turn(image: Tensor) -> Tensor:
    return torch.rot90(image, int(torch.randint(4, ())), dims=(-2, -1))


@dataclass(frozen=True)
class Operation:
    """``applies`` says whether a configuration has it for images of so many channels, ``create`` makes it for its images."""

    applies: Callable[[AugmentConfig, int], bool]
    create: Callable[[AugmentConfig, InputSpec], Any]


OPERATIONS = {
    "symmetries": Operation(
        lambda config, _: config.strength == "symmetries" and len(symmetries(config)) > 1, lambda *_: nn.Identity()
    ),
    "crop": Operation(lambda config, _: crops(config), _crop),
    "horizontal flip": Operation(
        lambda config, _: crops(config) and config.flip != "none", lambda *_: v2.RandomHorizontalFlip()
    ),
    "vertical flip": Operation(
        lambda config, _: crops(config) and config.flip == "both", lambda *_: v2.RandomVerticalFlip()
    ),
    "quarter turn": Operation(lambda config, _: crops(config) and config.rotate == "quarter", lambda *_: _quarter_turn),
    "colour jitter": Operation(
        lambda config, channels: STRENGTHS[config.strength].jitter > 0 and channels in COLOUR_CHANNELS, _jitter
    ),
    "policy": Operation(
        lambda config, channels: POLICIES[_policy_name(config)] is not None and channels in COLOUR_CHANNELS, _policy
    ),
    "erasing": Operation(lambda config, _: _erase_probability(config) > 0, _erasing),
}
