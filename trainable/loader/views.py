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
from trainable.loader.augmentations import OPERATIONS, crops
from trainable.loader.own_code import import_code
from trainable.randomness import derive


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
    tensors = []
    settings = config.model_dump_json()
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator alone
        for image, sample_id in zip(images, sample_ids, strict=True):
            torch.default_generator.manual_seed(derive(seed, "view", int(sample_id), epoch, config.strength))
            vary = _variation(settings, spec, image.shape[2])
            whole = crops(config)
            start = torch.from_numpy(image.copy()).permute(2, 0, 1) if whole else evaluation_view(image, spec)
            tensors.append(vary(start))
    return torch.stack(tensors)


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
