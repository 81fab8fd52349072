"""Mixes the images of a batch with each other: MixUp, CutMix."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from trainable.config.trial import AugmentConfig
from trainable.randomness import seeded

# What mixes a batch, by the key of `augment` that is the α of its Beta(α, α), 0 for off.
MIXERS: dict[str, type[v2.Transform]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mix(
    images: Tensor, labels: Tensor, *, config: AugmentConfig, num_classes: int, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """N×C×H×W float images and their targets, mixed as a pure function of (seed, epoch, step).

    Targets are N×K float shares of the classes wherever mixing is configured, one-hot for a batch it leaves alone; and
    the labels, N, themselves where it is not, or no more after ``mix_until``. An image is mixed with the one before it
    (MixUp: Zhang et al. 2018; CutMix: Yun et al. 2019), the only image of a batch with itself.
    """
    if not mixes(config, epoch=epoch):
        return images, labels
    with seeded(seed, "mix", epoch, step):
        if float(torch.rand(())) >= config.mix_probability:
            return images, one_hot(labels, num_classes).float()
        mixers = [name for name in MIXERS if getattr(config, name)]
        chosen = mixers[int(torch.randint(len(mixers), ()))]
        mixed, targets = MIXERS[chosen](alpha=getattr(config, chosen), num_classes=num_classes)(images, labels)
    return mixed, targets


def mixes(config: AugmentConfig, *, epoch: int) -> bool:
    """Whether images of an epoch are mixed."""
    is_over = config.mix_until is not None and epoch > config.mix_until
    return not is_over and any(getattr(config, name) for name in MIXERS)
