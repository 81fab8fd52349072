"""Shows an image to the network: varied for training, the same every time for evaluation."""

import importlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from trainable.config.trial import AugmentConfig
from trainable.data.decode import Pixels
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
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

    A pure function: it depends on neither the global generators nor what was drawn before. Strength `none` begins with
    the evaluation view; flips and quarter turns are ``config.flip`` and ``config.rotate`` at every other strength.
    Colour jitter and the policies of ``config.auto``, which know grey and colour only, are left out for other numbers of
    channels; on grey they change brightness, contrast and shape.
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
    if not varies(config, channels=len(spec.mean)):
        return torch.stack([evaluation_view(image, spec) for image in images])
    found = []
    said = config.model_dump_json()
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator alone
        for image, sample_id in zip(images, sample_ids, strict=True):
            torch.default_generator.manual_seed(derive(seed, "view", int(sample_id), epoch, config.strength))
            vary = _variation(said, spec, image.shape[2])
            whole = config.strength != "none"
            start = torch.from_numpy(image.copy()).permute(2, 0, 1) if whole else evaluation_view(image, spec)
            found.append(vary(start))
    return torch.stack(found)


def evaluation_view(image: Pixels, spec: InputSpec) -> Tensor:
    """The C×S×S centre of an H×W×C image whose shorter side is at least S."""
    top, left = ((length - spec.size) // 2 for length in image.shape[:2])
    crop = image[top : top + spec.size, left : left + spec.size]
    return torch.from_numpy(np.array(crop.transpose(2, 0, 1), order="C"))


@lru_cache
def _variation(said: str, spec: InputSpec, channels: int) -> v2.Transform:
    """The operations of a configuration, which is given as JSON because its lists have no hash."""
    config = AugmentConfig.model_validate_json(said)
    strength, interpolation = config.strength, INTERPOLATION[spec.interpolation]
    has_colour = channels in COLOUR_CHANNELS
    steps: list[Any] = []
    if strength != "none":
        scale = (SMALLEST_CROP[strength], 1.0)
        steps.append(v2.RandomResizedCrop(spec.size, scale=scale, interpolation=interpolation))
    if strength != "none" and config.flip != "none":
        steps.append(v2.RandomHorizontalFlip())
    if strength != "none" and config.flip == "both":
        steps.append(v2.RandomVerticalFlip())
    if strength != "none" and config.rotate == "quarter":
        steps.append(_quarter_turn)
    if strength in JITTER and has_colour:
        steps.append(v2.ColorJitter(*[JITTER[strength]] * 3))
    mean = [255 * value for value in spec.mean]
    if has_colour:
        steps += _policy(config, fill=mean)
    erase = _erase_probability(config)
    if erase:
        steps.append(v2.RandomErasing(p=erase, value=mean))
    return v2.Compose([*steps, *(imported(path) for path in config.custom)])


def imported(path: str) -> Any:
    """The function of an import path ``package.module:function``. Raises UserError where there is none."""
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"augment.custom: cannot import {path!r} ({error}); must be package.module:function, importable from the folder "
            "the command is run in"
        ) from error
    if not callable(function):
        raise UserError(f"augment.custom: {path!r} is no function")
    return function


def varies(config: AugmentConfig, *, channels: int) -> bool:
    """Whether training sees anything but the evaluation view of images with so many channels."""
    policy = config.auto or "none" if channels in COLOUR_CHANNELS else "none"
    return config.strength != "none" or policy != "none" or bool(config.erase) or bool(config.custom)


def _policy(config: AugmentConfig, *, fill: list[float]) -> list[v2.Transform]:
    policy = config.auto or ("randaugment" if config.strength == "strong" else "none")
    if policy == "randaugment":
        return [v2.RandAugment(num_ops=config.auto_ops, magnitude=config.auto_magnitude, fill=fill)]
    if policy == "trivial":
        return [v2.TrivialAugmentWide(fill=fill)]
    return [v2.AugMix(fill=fill)] if policy == "augmix" else []


def _erase_probability(config: AugmentConfig) -> float:
    if config.erase is not None:
        return config.erase
    return 0.5 if config.strength == "strong" else 0.0


def _quarter_turn(image: Tensor) -> Tensor:
    return torch.rot90(image, int(torch.randint(4, ())), dims=(-2, -1))
