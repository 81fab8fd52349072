"""Mixes the images of a batch with each other: MixUp, CutMix."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from trainable.config.trial import AugmentConfig
from trainable.randomness import seeded


def mix(
    images: Tensor, labels: Tensor, *, config: AugmentConfig, num_classes: int, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """N×C×H×W float images and their targets, mixed as a pure function of (seed, epoch, step).

    Targets are N×K float shares of the classes wherever mixing is configured, one-hot for a batch it leaves alone; and
    the labels, N, themselves where it is not, or no more after ``mix_until``. An image is mixed with the one before it
    (MixUp: Zhang et al. 2018; CutMix: Yun et al. 2019), the only image of a batch with itself.
    """
    mixers = _mixers(config, num_classes=num_classes)
    if not mixers or (config.mix_until is not None and epoch > config.mix_until):
        return images, labels
    with seeded(seed, "mix", epoch, step):
        if float(torch.rand(())) >= config.mix_probability:
            return images, one_hot(labels, num_classes).float()
        chosen = mixers[int(torch.randint(len(mixers), ()))]
        mixed, targets = chosen(images, labels)
    return mixed, targets


def _mixers(config: AugmentConfig, *, num_classes: int) -> list[v2.Transform]:
    mixers = []
    if config.mixup:
        mixers.append(v2.MixUp(alpha=config.mixup, num_classes=num_classes))
    if config.cutmix:
        mixers.append(v2.CutMix(alpha=config.cutmix, num_classes=num_classes))
    return mixers
