"""Images changed to look more like another domain's."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor


def fourier_swapped(source: Tensor, target: Tensor, *, beta: float) -> Tensor:
    """Images N×C×H×W of ``source`` with the coarse amplitudes of ``target``'s, pixel by pixel in 0 to 255, float32.

    Of the Fourier spectrum, the amplitudes of the frequencies up to b = floor(β·min(H, W)) periods an image in either
    direction are the target's, all phases and the rest the source's (FDA, Yang and Soatto 2020). Where b is 0 nothing is
    swapped, as the paper says of β = 0; its published code then still swaps the mean. The two have one shape.
    """
    height, width = source.shape[-2:]
    low = _low_frequencies(height, width, reach=int(beta * min(height, width))).to(source.device)
    of_source, of_target = (torch.fft.fft2(images.float()) for images in (source, target))
    swapped = torch.where(low, torch.polar(of_target.abs(), of_source.angle()), of_source)
    return cast(Tensor, torch.fft.ifft2(swapped).real).clamp(0, 255)


def towards(
    images: Tensor, *, score: Callable[[Tensor], Tensor], eps: float | Tensor, steps: int, low: Tensor, high: Tensor
) -> Tensor:
    """Images N×C×H×W moved to lower ``score``, a scalar; detached, and no parameter gets a gradient.

    No value moves by more than ``eps`` or out of [low, high], inside which the images are; the three broadcast to the
    images, in whose units they are. Steps are those of PGD without a random start (Madry et al. 2018), of size 2.5·eps/steps,
    so that they can reach the edge and turn back; one, which ends at the edge, is FGSM's (Goodfellow et al. 2015).
    """
    start = images.detach()
    least, most = torch.maximum(start - eps, low), torch.minimum(start + eps, high)
    size = 2.5 * eps / steps
    moved = start
    for _ in range(steps):
        moved = torch.clamp(moved - size * _gradient(moved, score=score).sign(), least, most)
    return moved


def _low_frequencies(height: int, width: int, *, reach: int) -> Tensor:
    """H×W, in the order of the FFT; as each frequency comes with its negative, the swapped images stay real."""
    rows, columns = (torch.fft.fftfreq(size, d=1 / size).abs() <= (reach or -1) for size in (height, width))
    return torch.logical_and(rows[:, None], columns)


def _gradient(images: Tensor, *, score: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.enable_grad():
        moving = images.detach().requires_grad_()
        return torch.autograd.grad(score(moving), moving)[0]
