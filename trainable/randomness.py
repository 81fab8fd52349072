"""Counter-based randomness: every draw is a function of what it is for.

Nothing here depends on how often or in which order it is asked, so that a resumed trial, another worker count or
another batch size draws the same numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainable.seeds import derive

__all__ = ["derive", "forked", "generator", "reseed", "seeded"]


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator of its own, seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: int | str, device: torch.device | None = None) -> Iterator[None]:
    """Torch's global generators seeded inside the block, as they were after it.

    For library code that draws from the global generators only: dropout, stochastic depth, torchvision's transforms.
    """
    with forked(device):
        reseed(seed, *purpose, device=device)
        yield


@contextmanager
def forked(device: torch.device | None = None) -> Iterator[None]:
    """Torch's global generators after the block as they were before it."""
    with torch.random.fork_rng(devices=[device] if _is_cuda(device) else []):
        yield


def reseed(seed: int, *purpose: int | str, device: torch.device | None = None) -> None:
    """Seed torch's global generators; inside :func:`forked`."""
    value = derive(seed, *purpose)
    torch.default_generator.manual_seed(value)
    if _is_cuda(device):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)


def _is_cuda(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda"
