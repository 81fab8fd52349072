"""Counter-based randomness: every draw is a function of what it is for.

Nothing here depends on how often or in which order it is asked, so that a resumed trial, another worker count or
another batch size draws the same numbers.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed that is a pure function of the seed and its purpose, equal on every machine."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


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
