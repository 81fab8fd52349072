"""The flips and quarter turns of an image that its subject allows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainable.config.trial import AugmentConfig

Symmetry = tuple[int, Sequence[int]]  # quarter turns, after flips over these axes


def symmetries(config: AugmentConfig) -> list[Symmetry]:
    """The flips and turns that a subject allows, each once, the image itself first."""
    turns = range(4) if config.rotate == "quarter" else range(1)
    flips: list[list[int]] = [[]] if config.flip == "none" else [[], [-1]]
    if config.flip == "both" and config.rotate == "none":  # a half turn is both flips
        flips += [[-2], [-2, -1]]
    return [(turn, axes) for turn in turns for axes in flips]


def turned(images: Tensor, symmetry: Symmetry) -> Tensor:
    """Images N×C×S×S flipped and turned."""
    turns, axes = symmetry
    return torch.rot90(images.flip(list(axes)), turns, dims=(-2, -1)).contiguous()
