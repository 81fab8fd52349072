"""Shows an image to the network: varied for training, the same every time for evaluation."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from trainable.config.trial import AugmentConfig
from trainable.data.decode import Pixels
from trainable.data.input_spec import InputSpec
from trainable.loader.augmentations import OPERATIONS, crops, symmetries
from trainable.loader.own_code import import_code
from trainable.randomness import derive, generator

VIEWS_BEHIND_HALF = 4  # of augment.views: auto, where each is computed once for all trials


def view(image: Pixels, *, config: AugmentConfig, spec: InputSpec, seed: int, sample_id: int, number: int) -> Tensor:
    """The C×S×S uint8 view ``number`` of an H×W×C image in training, S being ``spec.size``.

    A pure function: it depends on neither the global generators nor what was drawn before. Strengths `none` and
    `symmetries` begin with the evaluation view; flips and quarter turns are ``config.flip`` and ``config.rotate`` at every
    strength but none. ``symmetries`` show all of these there are before one comes again.
    Colour jitter and the policies of ``config.auto``, which know grey and colour only, are left out for other numbers of
    channels; on grey they change brightness, contrast and shape.
    """
    return views([image], config=config, spec=spec, seed=seed, sample_ids=[sample_id], number=number)[0]


def views(
    images: Iterable[Pixels],
    *,
    config: AugmentConfig,
    spec: InputSpec,
    seed: int,
    sample_ids: Iterable[int],
    number: int,
) -> Tensor:
    """The :func:`view` of every image, N×C×S×S uint8."""
    if not varies(config, channels=len(spec.mean)):
        return torch.stack([evaluation_view(image, spec) for image in images])
    tensors = []
    settings = config.model_dump_json()
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator alone
        for image, sample_id in zip(images, sample_ids, strict=True):
            torch.default_generator.manual_seed(derive(seed, "view", int(sample_id), number, config.strength))
            vary = _variation(settings, spec, image.shape[2])
            whole = crops(config)
            start = torch.from_numpy(image.copy()).permute(2, 0, 1) if whole else evaluation_view(image, spec)
            if config.strength == "symmetries":
                start = _symmetric(start, config=config, seed=seed, sample_id=int(sample_id), number=number)
            tensors.append(vary(start))
    return torch.stack(tensors)


def _symmetric(image: Tensor, *, config: AugmentConfig, seed: int, sample_id: int, number: int) -> Tensor:
    """The image under one of its symmetries: another for each number until all have been, in an order of the image's own."""
    every = symmetries(config)
    order = torch.randperm(len(every), generator=generator(seed, "symmetries", sample_id)).tolist()
    turns, flips = every[order[(number - 1) % len(every)]]
    return torch.rot90(image.flip(flips), turns, dims=(-2, -1)).contiguous()


def num_views(config: AugmentConfig, *, channels: int, begins_behind: float) -> int | None:
    """How many views of an image training sees; None for another in every epoch.

    ``begins_behind`` is the share of the network's work that is done before the layers at which training begins.
    """
    if not varies(config, channels=channels):
        return 1
    operations = {name for name, operation in OPERATIONS.items() if operation.applies(config, channels)}
    wanted = config.views
    if config.strength == "symmetries" and operations <= {"symmetries"} and not config.custom:
        return min(len(symmetries(config)), wanted) if isinstance(wanted, int) else len(symmetries(config))
    if wanted == "auto":
        return VIEWS_BEHIND_HALF if begins_behind >= 0.5 else None
    return None if wanted == "each_epoch" else wanted


def view_of(epoch: int, *, num: int | None) -> int:
    """The number of the view that an epoch sees, from 1."""
    return epoch if num is None else (epoch - 1) % num + 1


def evaluation_view(image: Pixels, spec: InputSpec) -> Tensor:
    """The C×S×S centre of an H×W×C image whose shorter side is at least S."""
    top, left = ((length - spec.size) // 2 for length in image.shape[:2])
    crop = image[top : top + spec.size, left : left + spec.size]
    return torch.from_numpy(np.array(crop.transpose(2, 0, 1), order="C"))


@lru_cache
def _variation(settings: str, spec: InputSpec, channels: int) -> v2.Transform:
    """The operations of a configuration, which is given as JSON because its lists have no hash."""
    config = AugmentConfig.model_validate_json(settings)
    steps = [operation.create(config, spec) for operation in OPERATIONS.values() if operation.applies(config, channels)]
    return v2.Compose([*steps, *(import_code(path) for path in config.custom)])


def varies(config: AugmentConfig, *, channels: int) -> bool:
    """Whether training sees anything but the evaluation view of images with so many channels."""
    return bool(config.custom) or any(operation.applies(config, channels) for operation in OPERATIONS.values())
