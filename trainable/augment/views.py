"""Shows an image to the network: varied for training, the same every time for evaluation."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from trainable.config import AugmentConfig
from trainable.data.decode import Pixels
from trainable.data.input_spec import InputSpec
from trainable.randomness import derive

SMALLEST_CROP = {"light": 0.5, "medium": 0.5, "strong": 0.25}  # share of the image's area
JITTER = {"medium": 0.2, "strong": 0.4}  # largest relative change of brightness, contrast and saturation
COLOUR_CHANNELS = (1, 3)  # what torchvision's colour operations accept
INTERPOLATION = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.BICUBIC,  # torch has no Lanczos for tensors
}


def view(image: Pixels, *, config: AugmentConfig, spec: InputSpec, seed: int, sample_id: int, epoch: int) -> Tensor:
    """The C×S×S uint8 view of an H×W×C image that training sees in ``epoch``, S being ``spec.size``.

    A pure function: it depends on neither the global generators nor what was drawn before. `none` is the evaluation
    view. Flips and quarter turns are ``config.flip`` and ``config.rotate`` at every other strength. Colour jitter and
    RandAugment, which know grey and colour only, are left out for other numbers of channels; on grey they change
    brightness, contrast and shape.
    """
    return views([image], config=config, spec=spec, seed=seed, sample_ids=[sample_id], epoch=epoch)[0]


def views(
    images: Iterable[Pixels],
    *,
    config: AugmentConfig,
    spec: InputSpec,
    seed: int,
    sample_ids: Iterable[int],
    epoch: int,
) -> Tensor:
    """The :func:`view` of every image, N×C×S×S uint8."""
    if config.strength == "none":
        return torch.stack([evaluation_view(image, spec) for image in images])
    found = []
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator alone
        for image, sample_id in zip(images, sample_ids, strict=True):
            torch.default_generator.manual_seed(derive(seed, "view", int(sample_id), epoch, config.strength))
            vary = _variation(config, spec, image.shape[2])
            found.append(vary(torch.from_numpy(image.copy()).permute(2, 0, 1)))
    return torch.stack(found)


def evaluation_view(image: Pixels, spec: InputSpec) -> Tensor:
    """The C×S×S centre of an H×W×C image whose shorter side is at least S."""
    top, left = ((length - spec.size) // 2 for length in image.shape[:2])
    crop = image[top : top + spec.size, left : left + spec.size]
    return torch.from_numpy(np.array(crop.transpose(2, 0, 1), order="C"))


@lru_cache
def _variation(config: AugmentConfig, spec: InputSpec, channels: int) -> v2.Transform:
    strength, interpolation = config.strength, INTERPOLATION[spec.interpolation]
    has_colour = channels in COLOUR_CHANNELS
    steps: list[Any] = [
        v2.RandomResizedCrop(spec.size, scale=(SMALLEST_CROP[strength], 1.0), interpolation=interpolation)
    ]
    if config.flip != "none":
        steps.append(v2.RandomHorizontalFlip())
    if config.flip == "both":
        steps.append(v2.RandomVerticalFlip())
    if config.rotate == "quarter":
        steps.append(_quarter_turn)
    if strength in JITTER and has_colour:
        steps.append(v2.ColorJitter(*[JITTER[strength]] * 3))
    mean = [255 * value for value in spec.mean]
    if strength == "strong" and has_colour:
        steps.append(v2.RandAugment(fill=mean))
    if strength == "strong":
        steps.append(v2.RandomErasing(value=mean))
    return v2.Compose(steps)


def _quarter_turn(image: Tensor) -> Tensor:
    return torch.rot90(image, int(torch.randint(4, ())), dims=(-2, -1))
