"""The operations that vary a training image, in the order in which they are applied."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainable.config.techniques import COLOUR_CHANNELS
from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.loader.crops import Numbers, draw_boxes
from trainable.loader.draws import Draws
from trainable.loader.pixels import Floats, brightness, contrast, erase, on_some, saturation
from trainable.loader.policies import augmix, randaugment, trivial
from trainable.loader.symmetries import Symmetry, symmetries, turned

ERASED_SHARE, ERASED_RATIO = (
    (0.02, 0.33),
    (0.3, 3.3),
)  # of a box, of the image's area and of width to height (Zhong et al. 2020)
JITTERS = (brightness, contrast, saturation)


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


# Policies of random operations, which know grey and colour only; ``fill``, 1×C×1×1, is what moves in from outside.
POLICIES: dict[str, Callable[[Tensor, Draws, AugmentConfig, Tensor], Tensor] | None] = {
    "none": None,
    "randaugment": randaugment,
    "trivial": trivial,
    "augmix": augmix,
}


def crops(config: AugmentConfig) -> bool:
    """Whether the operations begin with the whole image, from which they cut, and not with the evaluation view."""
    return STRENGTHS[config.strength].smallest_crop is not None


def _symmetric(images: Tensor, draws: Draws, config: AugmentConfig, _: InputSpec) -> Tensor:
    """Another symmetry for each number until an image has shown all, in an order of its own."""
    every = symmetries(config)
    orders = Draws(draws.seed, draws.sample_ids, 0).uniform("symmetries", len(every)).argsort(axis=1)
    chosen = orders[:, (draws.number - 1) % len(every)]
    for kind, symmetry in enumerate(every[1:], start=1):  # the first is the image itself
        images = on_some(images, chosen == kind, partial(_turned, symmetry=symmetry))
    return images


def _turned(images: Tensor, _: object, *, symmetry: Symmetry) -> Tensor:
    return turned(images, symmetry)


def _horizontal_flip(images: Tensor, draws: Draws, _: AugmentConfig, __: InputSpec) -> Tensor:
    return on_some(images, draws.chance("horizontal flip", 0.5), lambda some, _: some.flip(-1))


def _vertical_flip(images: Tensor, draws: Draws, _: AugmentConfig, __: InputSpec) -> Tensor:
    return on_some(images, draws.chance("vertical flip", 0.5), lambda some, _: some.flip(-2))


def _quarter_turn(images: Tensor, draws: Draws, _: AugmentConfig, __: InputSpec) -> Tensor:
    turns = draws.below("quarter turn", 4)[:, 0]
    for number in (1, 2, 3):
        images = on_some(images, turns == number, partial(_turned, symmetry=(number, ())))
    return images


def _jitter(images: Tensor, draws: Draws, config: AugmentConfig, _: InputSpec) -> Tensor:
    """Brightness, contrast and saturation, in any order."""
    largest = STRENGTHS[config.strength].jitter
    factors = 1 + largest * (2 * draws.uniform("colour jitter", len(JITTERS)) - 1)
    order = draws.uniform("order of jitter", len(JITTERS)).argsort(axis=1)
    for step in range(len(JITTERS)):
        for kind, change in enumerate(JITTERS):
            by_factor = partial(_jittered, change=change, factors=factors[:, kind])
            images = on_some(images, order[:, step] == kind, by_factor)
    return images


def _jittered(images: Tensor, at: Numbers, *, change: Callable[[Tensor, Floats], Tensor], factors: Floats) -> Tensor:
    return change(images, factors[at])


def _policy(images: Tensor, draws: Draws, config: AugmentConfig, spec: InputSpec) -> Tensor:
    policy = POLICIES[_policy_name(config)]
    assert policy is not None
    return policy(images, draws, config, _mean_pixel(spec, images))


def _policy_name(config: AugmentConfig) -> str:
    return config.auto or STRENGTHS[config.strength].policy


def _erasing(images: Tensor, draws: Draws, config: AugmentConfig, spec: InputSpec) -> Tensor:
    sides = np.full(len(draws), spec.size)
    boxes = draw_boxes(draws, "erased box", sizes=(sides, sides), share=ERASED_SHARE, ratio=ERASED_RATIO)
    where = draws.chance("erasing", _erase_probability(config)) & (boxes.height > 0)
    fill = _mean_pixel(spec, images)
    return on_some(images, where, lambda some, at: erase(some, boxes.of(at), fill=fill))


def _erase_probability(config: AugmentConfig) -> float:
    return STRENGTHS[config.strength].erase if config.erase is None else config.erase


def _mean_pixel(spec: InputSpec, images: Tensor) -> Tensor:
    pixel = torch.tensor([int(255 * value) for value in spec.mean], dtype=torch.uint8)
    return pixel.to(images.device, non_blocking=True).view(1, -1, 1, 1)


@dataclass(frozen=True)
class Operation:
    """``applies`` says whether a configuration has it for images of so many channels, ``apply`` does it to N×C×S×S of them.

    What it is given is its own to write into.
    """

    applies: Callable[[AugmentConfig, int], bool]
    apply: Callable[[Tensor, Draws, AugmentConfig, InputSpec], Tensor]


# In this order, after the crop of a strength that has one.
OPERATIONS = {
    "symmetries": Operation(
        lambda config, _: config.strength == "symmetries" and len(symmetries(config)) > 1, _symmetric
    ),
    "horizontal flip": Operation(lambda config, _: crops(config) and config.flip != "none", _horizontal_flip),
    "vertical flip": Operation(lambda config, _: crops(config) and config.flip == "both", _vertical_flip),
    "quarter turn": Operation(lambda config, _: crops(config) and config.rotate == "quarter", _quarter_turn),
    "colour jitter": Operation(
        lambda config, channels: STRENGTHS[config.strength].jitter > 0 and channels in COLOUR_CHANNELS, _jitter
    ),
    "policy": Operation(
        lambda config, channels: POLICIES[_policy_name(config)] is not None and channels in COLOUR_CHANNELS, _policy
    ),
    "erasing": Operation(lambda config, _: _erase_probability(config) > 0, _erasing),
}
