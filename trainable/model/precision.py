"""In what precision a network computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

AmpName = Literal["off", "bf16", "fp16"]


def used_amp(amp: AmpName | Literal["auto"], device: torch.device) -> AmpName:
    """The precision that ``train.amp`` is on a device: ``auto`` is bf16 on a GPU that computes in it, else off."""
    if amp != "auto":
        return amp
    return "bf16" if _has_bf16(device) else "off"


def _has_bf16(device: torch.device) -> bool:
    """Whether it is a GPU with bf16 of its own; a CPU that has it is left alone, for its results are the same on all CPUs."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in float32, with autocast off inside the block."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(tensor.float() for tensor in tensors)
