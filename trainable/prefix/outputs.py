"""What frozen layers make of images, in the order in which it is asked for: kept, or computed as it is needed."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from trainable.loader.batches import Rows
from trainable.loader.held import fits_on_device, free_bytes
from trainable.model.chain import resting
from trainable.prefix.store import Block

# Images of every forward pass: torch's convolutions give small batches, and no others, other last bits. A GPU takes a block.
FILL_SIZES = {"cpu": 32, "cuda": 64}
BLOCK_SIZE = 64  # images of a block, which one process computes while others compute the next
CPU = torch.device("cpu")
IN_MEMORY = 32_000_000  # bytes of a view that a process has at hand: pooled features, not feature maps
LARGEST_HALF = 65504.0  # of float16


def fill_size(device: torch.device) -> int:
    """Images of every forward pass of frozen layers on a device."""
    return FILL_SIZES[device.type]


@dataclass(kw_only=True)
class Spent:
    """Seconds that frozen layers took for so many ``images``, that others were waited for, and that what was kept saved."""

    computing: float = 0.0
    images: int = 0
    waiting: float = 0.0
    saved: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Computes the outputs of a prefix, its ``links``, from normalised images; values are rounded to float16 where ``half``."""

    links: Sequence[nn.Module]
    images: Callable[[Rows], Tensor]
    half: bool
    autocast: Callable[[], AbstractContextManager[object]]
    device: torch.device = CPU

    @property
    def size(self) -> int:
        """Images of every forward pass."""
        return fill_size(self.device)

    def compute(self, rows: Rows) -> Tensor:
        """The outputs for any number of rows, each independent of the others."""
        return torch.cat([self._pass(rows[start : start + self.size]) for start in range(0, len(rows), self.size)])

    def go_on(self, block: Block, *, done: int) -> Tensor:
        """The outputs for the images of a block that holds what the first ``done`` links made of them."""
        positions = np.arange(len(block.values))
        parts = [positions[start : start + self.size] for start in range(0, len(positions), self.size)]
        given = (block.outputs(np.resize(part, self.size)).to(self.device) for part in parts)
        return torch.cat([self._run(one, done=done)[: len(part)] for one, part in zip(given, parts, strict=True)])

    def _pass(self, rows: Rows) -> Tensor:
        return self._run(self.images(np.resize(rows, self.size)), done=0)[: len(rows)]

    def _run(self, outputs: Tensor, *, done: int) -> Tensor:
        with torch.no_grad(), self.autocast(), resting(self.links):
            for link in self.links[done:]:
                outputs = link(outputs)
                if self.half:
                    outputs = outputs.clamp(-LARGEST_HALF, LARGEST_HALF).half().to(outputs.dtype)
        return outputs


class Kept:
    """The outputs of a prefix for some images, from their blocks; in a processor's memory where few, in a GPU's where they fit.

    ``held_bytes`` are those of others that are held there.
    """

    def __init__(self, blocks: Sequence[Block], *, device: torch.device = CPU, held_bytes: int = 0) -> None:
        self._blocks = blocks
        self._whole: Tensor | None = None
        num_bytes = sum(block.values.nbytes for block in blocks)
        if device.type == "cpu":
            is_held = num_bytes <= IN_MEMORY
        else:
            is_held = fits_on_device(num_bytes, free_bytes=free_bytes(device), held_bytes=held_bytes)
        if is_held:
            self._whole = torch.from_numpy(np.concatenate([block.values for block in blocks])).to(device)

    @property
    def held_bytes(self) -> int:
        """What is in memory."""
        return 0 if self._whole is None else self._whole.nbytes

    @property
    def milliseconds(self) -> float:
        """What computing one image from its pixels took."""
        return self._blocks[0].milliseconds

    def at(self, positions: Rows) -> Tensor:
        """The outputs for the images at these positions."""
        first = self._blocks[0]
        if self._whole is not None:
            return first.as_they_were(
                self._whole[torch.from_numpy(positions).to(self._whole.device, non_blocking=True)]
            )
        values = np.stack([self._blocks[at // BLOCK_SIZE].values[at % BLOCK_SIZE] for at in positions.tolist()])
        return replace(first, values=values).outputs(np.arange(len(values)))


class Outputs:
    """What a prefix makes of the images of some rows, ascending; ``kept``, or else computed."""

    def __init__(self, rows: Rows, *, source: Source, spent: Spent, kept: Kept | None = None) -> None:
        self._rows, self._source, self._spent, self._kept = rows, source, spent, kept

    def batches(self, requests: Iterable[Rows]) -> Iterator[Tensor]:
        """The outputs for each request, rows in any order; the same to the bit however they are come by."""
        if self._kept is None:
            yield from self._computed(list(requests))
            return
        for rows in requests:
            self._spent.saved += self._kept.milliseconds * len(rows) / 1000
            yield self._kept.at(np.searchsorted(self._rows, rows))

    def _computed(self, requests: list[Rows]) -> Iterator[Tensor]:
        """Full forward passes over all that is asked for, handed out as it was."""
        wanted = np.concatenate(requests) if requests else np.zeros(0, np.int64)
        ready: list[Tensor] = []
        start = 0
        for rows in requests:
            while sum(map(len, ready)) < len(rows):
                began = time.perf_counter()
                ready.append(self._source.compute(wanted[start : start + self._source.size]))
                start += self._source.size
                self._spent.computing += time.perf_counter() - began
                self._spent.images += len(ready[-1])
            together = torch.cat(ready) if len(ready) > 1 else ready[0]
            yield together[: len(rows)]
            ready = [together[len(rows) :]] if len(together) > len(rows) else []
