"""Full precision inside a region of mixed precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in float32, with autocast off inside the block."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(tensor.float() for tensor in tensors)
