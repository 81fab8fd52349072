"""Parts of images, each its own, at one size."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from trainable.data.decode import Pixels
from trainable.loader.draws import Draws

INTERPOLATION = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.BICUBIC,  # torch has no Lanczos for tensors
}
REACH = {InterpolationMode.BILINEAR: 1.0, InterpolationMode.BICUBIC: 2.0}  # of a filter, in pixels of the coarser grid
TRIES = 10  # of a box that lies inside its image, as in Inception's crops (Szegedy et al. 2015)

Image = Pixels | Tensor  # H×W×C uint8: an array, or a tensor on the device
Numbers = NDArray[np.int64]


class Boxes(NamedTuple):
    """A box in each of N images, in pixels; one of no height where none was found."""

    top: Numbers
    left: Numbers
    height: Numbers
    width: Numbers

    def of(self, positions: Numbers) -> "Boxes":
        """The boxes of the images at these positions."""
        return Boxes(*(sides[positions] for sides in self))


def draw_boxes(
    draws: Draws,
    purpose: str,
    *,
    sizes: tuple[Numbers, Numbers],
    share: tuple[float, float],
    ratio: tuple[float, float],
) -> Boxes:
    """Boxes of a ``share`` of the area and a ``ratio`` of width to height, both from range to range, anywhere inside.

    ``sizes`` are the heights and widths of the N images.
    """
    heights, widths = sizes
    drawn = draws.uniform(purpose, 2 * TRIES + 2)
    areas = (share[0] + (share[1] - share[0]) * drawn[:, :TRIES]) * (heights * widths)[:, None]
    ratios = np.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * drawn[:, TRIES : 2 * TRIES])
    wide, high = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = (wide >= 1) & (wide <= widths[:, None]) & (high >= 1) & (high <= heights[:, None])
    first, rows = fits.argmax(axis=1), np.arange(len(draws))
    found = fits[rows, first]
    width, height = (np.where(found, sides[rows, first], 0).astype(np.int64) for sides in (wide, high))
    top = (drawn[:, -2] * (heights - height + 1)).astype(np.int64)
    left = (drawn[:, -1] * (widths - width + 1)).astype(np.int64)
    return Boxes(top, left, height, width)


def draw_crops(draws: Draws, *, sizes: tuple[Numbers, Numbers], smallest: float) -> Boxes:
    """Boxes of at least a share ``smallest`` of each image; its centre where none that was drawn lies inside it."""
    ratio = (3 / 4, 4 / 3)
    drawn = draw_boxes(draws, "crop", sizes=sizes, share=(smallest, 1.0), ratio=ratio)
    heights, widths = sizes
    width = np.minimum(widths, np.rint(heights * ratio[1]).astype(np.int64))
    height = np.minimum(heights, np.rint(widths / ratio[0]).astype(np.int64))
    centre = Boxes((heights - height) // 2, (widths - width) // 2, height, width)
    return Boxes(*(np.where(drawn.height > 0, one, other) for one, other in zip(drawn, centre, strict=True)))


def centres(sizes: tuple[Numbers, Numbers], *, size: int) -> Boxes:
    """The boxes of ``size`` pixels a side in the middle."""
    heights, widths = sizes
    side = np.full_like(heights, size)
    return Boxes((heights - size) // 2, (widths - size) // 2, side, side)


def sizes_of(images: Sequence[Image]) -> tuple[Numbers, Numbers]:
    """Heights and widths of the images."""
    shapes = np.array([image.shape[:2] for image in images], dtype=np.int64).reshape(-1, 2)
    return shapes[:, 0], shapes[:, 1]


def cut(images: Sequence[Image], boxes: Boxes, *, device: torch.device) -> list[Tensor]:
    """The boxes of the images, C×H×W, on the device."""
    sides = np.stack(boxes, axis=1).tolist()
    parts = [
        image[top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(images, sides, strict=True)
    ]
    arrays = [part for part in parts if not isinstance(part, Tensor)]
    copies = iter([torch.from_numpy(np.array(part, order="C")) for part in arrays])
    if device.type != "cpu":
        copies = iter(send(arrays, device=device))
    every = (part if isinstance(part, Tensor) else next(copies) for part in parts)
    return [part.permute(2, 0, 1) for part in every]


def send(arrays: Sequence[Pixels], *, device: torch.device) -> list[Tensor]:
    """Arrays on the device, in one copy that nobody waits for."""
    starts = np.cumsum([0, *(array.size for array in arrays)]).tolist()
    together = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for array, start in zip(arrays, starts, strict=False):
        together.numpy()[start : start + array.size].reshape(array.shape)[...] = array
    sent = together.to(device, non_blocking=True)
    return [sent[start : start + array.size].view(array.shape) for array, start in zip(arrays, starts, strict=False)]


def resized(parts: Sequence[Tensor], *, size: int, interpolation: str) -> Tensor:
    """The parts, C×H×W, at one size, N×C×S×S, smoothed where they shrink.

    A CPU takes one after the other, a GPU all at once; the two differ by one step of 256 at most.
    """
    mode = INTERPOLATION[interpolation]
    if parts[0].device.type == "cpu":
        every = [functional.resize(part, [size, size], interpolation=mode, antialias=True) for part in parts]
        return torch.stack(every)
    return resize_together(parts, size=size, mode=mode)


def resize_together(parts: Sequence[Tensor], *, size: int, mode: InterpolationMode) -> Tensor:
    """:func:`resized` as two products of matrices for all parts: their columns, then their rows, rounded as on a CPU."""
    device, channels = parts[0].device, parts[0].shape[0]
    lengths = torch.tensor([part.shape[1:] for part in parts]).to(device, non_blocking=True)
    height, width = (max(part.shape[axis] for part in parts) for axis in (1, 2))
    padded = torch.zeros(len(parts), channels, height, width, dtype=torch.uint8, device=device)
    for place, part in zip(padded, parts, strict=True):
        place[:, : part.shape[1], : part.shape[2]] = part
    across = _weights(lengths[:, 1], longest=width, size=size, mode=mode)
    down = _weights(lengths[:, 0], longest=height, size=size, mode=mode)
    with torch.autocast(device.type, enabled=False):
        rows = _rounded(torch.bmm(padded.float().flatten(1, 2), across.transpose(1, 2)))
        rows = rows.view(len(parts), channels, height, size).transpose(1, 2).flatten(2)
        square = _rounded(torch.bmm(down, rows)).view(len(parts), size, channels, size)
    return square.transpose(1, 2).to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(lengths: Tensor, *, longest: int, size: int, mode: InterpolationMode) -> Tensor:
    """N×size×longest: how much of each pixel of a line of each length goes into each of ``size`` pixels."""
    scale = (lengths.float() / size).view(-1, 1, 1)
    out = torch.arange(size, device=lengths.device, dtype=torch.float32).view(1, -1, 1)
    pixels = torch.arange(longest, device=lengths.device, dtype=torch.float32).view(1, 1, -1)
    if mode == InterpolationMode.NEAREST:
        return (pixels == (out * scale).floor()).float()
    distance = (pixels + 0.5 - scale * (out + 0.5)) / scale.clamp(min=1)
    weights = _triangle(distance) if mode == InterpolationMode.BILINEAR else _cubic(distance)
    weights = weights * (pixels < lengths.view(-1, 1, 1))
    return weights / weights.sum(dim=2, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution (1981) with a = -0.5."""
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < REACH[InterpolationMode.BICUBIC], far, 0))


def _rounded(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255)
