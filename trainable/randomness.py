"""Counter-based randomness: every draw is a function of what it is for.

Nothing here depends on how often or in which order it is asked, so that a resumed trial, another worker count or
another batch size draws the same numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainable.seeds import derive

__all__ = ["derive", "generator", "seeded"]


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator of its own, seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: int | str, device: torch.device | None = None) -> Iterator[None]:
    """Torch's global generators seeded inside the block, as they were after it.

    For library code that draws from the global generators only: dropout, stochastic depth, torchvision's transforms.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        value = derive(seed, *purpose)
        torch.default_generator.manual_seed(value)
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(value)
        yield
