"""Policies of random operations, each image with its own: RandAugment, TrivialAugment, AugMix."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.config.trial import AugmentConfig
from trainable.loader.draws import Draws
from trainable.loader.pixels import (
    Floats,
    autocontrast,
    brightness,
    contrast,
    equalise,
    move,
    on_some,
    posterise,
    saturation,
    sharpness,
    solarise,
)

BINS = 31  # of magnitudes in RandAugment and TrivialAugment
CHAINS, DEPTH, SEVERITY, AUGMIX_BINS = (
    3,
    3,
    3,
    10,
)  # of AugMix: chains, operations of each, magnitudes used of those there are

Change = Callable[[Tensor, Floats, Tensor], Tensor]


class Range(NamedTuple):
    """From the weakest to the strongest magnitude; of both signs where ``signed``, in parts of the side where ``of_side``."""

    weakest: float
    strongest: float
    signed: bool = False
    of_side: bool = False


def _moving(matrix_of: Callable[[Floats], list[Floats | float]]) -> Change:
    """Moves images by the six numbers that ``matrix_of`` makes of magnitudes."""

    def change(images: Tensor, magnitudes: Floats, fill: Tensor) -> Tensor:
        columns = np.broadcast_arrays(*matrix_of(magnitudes), magnitudes)[:6]
        return move(images, np.stack(columns, axis=1), fill=fill)

    return change


def _turn(images: Tensor, degrees: Floats, fill: Tensor) -> Tensor:
    """About the middle."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = (images.shape[-1] - 1) / 2, (images.shape[-2] - 1) / 2
    columns = [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]
    return move(images, np.stack(columns, axis=1), fill=fill)


def _by_factor(change: Callable[[Tensor, Floats], Tensor]) -> Change:
    return lambda images, magnitudes, _: change(images, 1 + magnitudes)


def _plain(change: Callable[[Tensor, Floats], Tensor]) -> Change:
    return lambda images, magnitudes, _: change(images, np.rint(magnitudes) if change is posterise else magnitudes)


CHANGES: dict[str, Change] = {
    "identity": lambda images, *_: images,
    "shear x": _moving(lambda m: [1.0, m, 0.0, 0.0, 1.0, 0.0]),
    "shear y": _moving(lambda m: [1.0, 0.0, 0.0, m, 1.0, 0.0]),
    "translate x": _moving(lambda m: [1.0, 0.0, np.trunc(m), 0.0, 1.0, 0.0]),
    "translate y": _moving(lambda m: [1.0, 0.0, 0.0, 0.0, 1.0, np.trunc(m)]),
    "rotate": _turn,
    "brightness": _by_factor(brightness),
    "saturation": _by_factor(saturation),
    "contrast": _by_factor(contrast),
    "sharpness": _by_factor(sharpness),
    "posterise": _plain(posterise),
    "solarise": _plain(solarise),
    "autocontrast": _plain(autocontrast),
    "equalise": _plain(equalise),
}
NOTHING = Range(0.0, 0.0)


def _ranges(*, shear: float, shift: Range, degrees: float, colour: float, bits: tuple[int, int]) -> dict[str, Range]:
    colours = dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), Range(0.0, colour, signed=True))
    return {
        "identity": NOTHING,
        "shear x": Range(0.0, shear, signed=True),
        "shear y": Range(0.0, shear, signed=True),
        "translate x": shift,
        "translate y": shift,
        "rotate": Range(0.0, degrees, signed=True),
        **colours,
        "posterise": Range(*bits),
        "solarise": Range(1.0, 0.0),
        "autocontrast": NOTHING,
        "equalise": NOTHING,
    }


# The spaces of the papers: Cubuk et al. 2020, Müller & Hutter 2021 (wide), Hendrycks et al. 2020 with all operations.
RANDAUGMENT = _ranges(
    shear=0.3, shift=Range(0.0, 150 / 331, signed=True, of_side=True), degrees=30.0, colour=0.9, bits=(8, 4)
)
TRIVIAL = _ranges(shear=0.99, shift=Range(0.0, 32.0, signed=True), degrees=135.0, colour=0.99, bits=(8, 2))
AUGMIX = _ranges(shear=0.3, shift=Range(0.0, 1 / 3, signed=True, of_side=True), degrees=30.0, colour=0.9, bits=(4, 0))
del AUGMIX["identity"]


def randaugment(images: Tensor, draws: Draws, config: AugmentConfig, fill: Tensor) -> Tensor:
    """``auto_ops`` operations one after the other, of the magnitude ``auto_magnitude``."""
    levels = np.full(len(draws), config.auto_magnitude / (BINS - 1))
    for step in range(config.auto_ops):
        images = _one(images, draws, f"randaugment {step}", ranges=RANDAUGMENT, levels=levels, fill=fill)
    return images


def trivial(images: Tensor, draws: Draws, _: AugmentConfig, fill: Tensor) -> Tensor:
    """One operation of any magnitude."""
    levels = draws.below("trivial magnitude", BINS)[:, 0] / (BINS - 1)
    return _one(images, draws, "trivial", ranges=TRIVIAL, levels=levels, fill=fill)


def augmix(images: Tensor, draws: Draws, _: AugmentConfig, fill: Tensor) -> Tensor:
    """The image and what several chains of operations make of it, weighed at random; here by whole pixels."""
    shares = _shares(draws)
    mixed = images.float().mul_(_column(shares[:, 0], images))
    depths = draws.below("augmix depth", DEPTH, CHAINS) + 1
    for chain in range(CHAINS):
        changed = images.clone()
        for step in range(DEPTH):
            purpose = f"augmix {chain} {step}"
            levels = draws.below(f"{purpose} magnitude", SEVERITY)[:, 0] / (AUGMIX_BINS - 1)
            goes_on = depths[:, chain] > step
            changed = _one(changed, draws, purpose, ranges=AUGMIX, levels=levels, fill=fill, where=goes_on)
        mixed.add_(changed.float().mul_(_column(shares[:, 1 + chain], images)))
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


def _shares(draws: Draws) -> Floats:
    """N×(1 + chains): of the image, from Beta(1, 1), and of the chains, from a flat Dirichlet."""
    drawn = draws.uniform("augmix shares", 1 + CHAINS)
    parts = -np.log1p(-drawn[:, 1:]) + 1e-12
    chains = drawn[:, :1] * parts / parts.sum(axis=1, keepdims=True)
    return np.concatenate([1 - drawn[:, :1], chains], axis=1)


def _column(values: Floats, images: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)


def _one(
    images: Tensor,
    draws: Draws,
    purpose: str,
    *,
    ranges: Mapping[str, Range],
    levels: Floats,
    fill: Tensor,
    where: NDArray[np.bool_] | None = None,
) -> Tensor:
    """Each image, or each ``where``, changed by one of the operations at a level from 0, the weakest, to 1."""
    drawn = draws.uniform(purpose, 2)
    kinds, signs = (drawn[:, 0] * len(ranges)).astype(np.int64), np.where(drawn[:, 1] < 0.5, -1.0, 1.0)
    for kind, (name, span) in enumerate(ranges.items()):
        magnitudes = span.weakest + levels * (span.strongest - span.weakest)
        magnitudes = magnitudes * (images.shape[-1] if span.of_side else 1) * (signs if span.signed else 1)
        chosen = kinds == kind if where is None else where & (kinds == kind)
        images = on_some(images, chosen, partial(_changed, change=CHANGES[name], magnitudes=magnitudes, fill=fill))
    return images


def _changed(images: Tensor, at: NDArray[np.int64], *, change: Change, magnitudes: Floats, fill: Tensor) -> Tensor:
    return change(images, magnitudes[at], fill)
