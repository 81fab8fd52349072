"""Changes of the pixels of N×C×S×S uint8 images, each image by numbers of its own; the same to the bit on every device."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from trainable.loader.crops import Boxes

GREY = (19595, 38470, 7471)  # of red, green and blue in 65,536 parts (ITU-R BT.601)
ONE = 1 << 16  # of coordinates, which are whole numbers so that no device rounds them otherwise

Floats = NDArray[np.float64]


def on_some(images: Tensor, where: NDArray[np.bool_], change: Callable[[Tensor, NDArray[np.int64]], Tensor]) -> Tensor:
    """The images with those ``where`` changed in place; ``change`` is given them and their positions."""
    positions = np.flatnonzero(where)
    if len(positions) == 0:
        return images
    if len(positions) == len(images):
        return change(images, positions)
    index = torch.from_numpy(positions).to(images.device, non_blocking=True)
    return images.index_copy_(0, index, change(images[index], positions))


def brightness(images: Tensor, factors: Floats) -> Tensor:
    """Black at factor 0, themselves at 1."""
    return _scaled(images, factors=_each(factors, images), plus=0.5)


def contrast(images: Tensor, factors: Floats) -> Tensor:
    """Their mean grey at factor 0, themselves at 1."""
    sums = images.flatten(2).sum(dim=2, dtype=torch.int64)
    weights = torch.tensor(_grey_of(images)).to(images.device, non_blocking=True)
    grey = ((sums * weights).sum(dim=1).double() / (ONE * images[0, 0].numel())).float().view(-1, 1, 1, 1)
    each = _each(factors, images)
    return _scaled(images, factors=each, plus=grey * (1 - each) + 0.5)


def saturation(images: Tensor, factors: Floats) -> Tensor:
    """Grey at factor 0, themselves at 1; grey images are left as they are."""
    if images.shape[1] == 1:
        return images
    each, whole = _each(factors, images), images.float()
    parts = [whole[:, channel] * (part / ONE) for channel, part in enumerate(_grey_of(images))]
    grey = parts[0].add_(parts[1]).add_(parts[2])[:, None]
    return _cut(whole.mul_(each).add_(grey.mul_(1 - each).add_(0.5)))


def sharpness(images: Tensor, factors: Floats) -> Tensor:
    """Smoothed at factor 0, themselves at 1; the outermost pixels stay as they are."""
    if min(images.shape[-2:]) <= 2:
        return images
    each, whole = _each(factors, images), images.to(torch.int16)
    rows = whole[..., :-2, :] + whole[..., 1:-1, :] + whole[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[..., 1:-1, 1:-1]
    inside = images[..., 1:-1, 1:-1]
    changed = images.clone()
    changed[..., 1:-1, 1:-1] = _scaled(inside, factors=each, plus=smooth.float().mul_((1 - each) / 13).add_(0.5))
    return changed


def posterise(images: Tensor, bits: Floats) -> Tensor:
    """So many of the eight bits of every pixel are left."""
    masks = 256 - (1 << (8 - bits.astype(np.int64)))
    return images & torch.from_numpy(masks.astype(np.uint8)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)


def solarise(images: Tensor, thresholds: Floats) -> Tensor:
    """What is at least so bright, 0 to 1, is inverted."""
    least = torch.from_numpy(np.ceil(255 * thresholds).astype(np.uint8)).to(images.device, non_blocking=True)
    return torch.where(images >= least.view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor, _: Floats) -> Tensor:
    """The darkest value of each channel black, the brightest white."""
    changed: Tensor = functional.autocontrast(images)
    return changed


def equalise(images: Tensor, _: Floats) -> Tensor:
    """The values of each channel as often as one another."""
    changed: Tensor = functional.equalize(images)
    return changed


def move(images: Tensor, matrices: Floats, *, fill: Tensor) -> Tensor:
    """Each pixel (x, y) is that at the nearest (a·x + b·y + c, d·x + e·y + f) of an image's 6 numbers; ``fill`` outside."""
    size_y, size_x = images.shape[-2:]
    whole = np.rint(matrices * ONE).astype(np.int32)
    whole[:, [2, 5]] += ONE // 2
    a, b, c, d, e, f = (
        torch.from_numpy(whole).to(images.device, non_blocking=True).T.reshape(6, -1, 1, 1).unbind()  # N×1×1 each
    )
    x = torch.arange(size_x, device=images.device, dtype=torch.int32)
    y = torch.arange(size_y, device=images.device, dtype=torch.int32).view(-1, 1)
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    near_x, near_y = from_x.clamp(0, size_x - 1), from_y.clamp(0, size_y - 1)
    inside = (near_x == from_x).logical_and_(near_y == from_y)
    index = near_y.mul_(size_x).add_(near_x).long().flatten(1)
    moved = images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return torch.where(inside[:, None], moved, fill)


def erase(images: Tensor, boxes: Boxes, *, fill: Tensor) -> Tensor:
    """What lies in an image's box is ``fill``."""
    sides = torch.from_numpy(np.stack(boxes)).to(images.device, non_blocking=True).view(4, -1, 1, 1)
    x = torch.arange(images.shape[-1], device=images.device)
    y = torch.arange(images.shape[-2], device=images.device).view(-1, 1)
    top, left, height, width = sides.unbind()
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return torch.where(inside[:, None], fill, images)


def _scaled(images: Tensor, *, factors: Tensor, plus: Tensor | float) -> Tensor:
    return _cut(images.float().mul_(factors).add_(plus))


def _cut(values: Tensor) -> Tensor:
    """Whole numbers of a pixel, the fraction cut off."""
    return values.clamp_(0, 255).to(torch.uint8)


def _grey_of(images: Tensor) -> tuple[int, ...]:
    """How much of each channel is in its grey, in 65,536 parts."""
    return GREY if images.shape[1] == len(GREY) else (ONE,)


def _each(values: Floats, images: Tensor) -> Tensor:
    """A number an image, N×1×1×1, on the device."""
    return torch.from_numpy(values.astype(np.float32)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)
