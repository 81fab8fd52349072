"""What frozen layers make of images, in the order in which it is asked for: kept, or computed as it is needed."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from trainable.loader.batches import Rows
from trainable.prefix.store import Block

FILL_SIZE = 32  # images of every forward pass: torch's convolutions give small batches, and no others, other last bits
BLOCK_SIZE = 64  # images of a block, which one process computes while others compute the next
IN_MEMORY = 32_000_000  # bytes of a view that a process has at hand: pooled features, not feature maps
LARGEST_HALF = 65504.0  # of float16


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

    def compute(self, rows: Rows) -> Tensor:
        """The outputs for any number of rows, each independent of the others."""
        return torch.cat([self._pass(rows[start : start + FILL_SIZE]) for start in range(0, len(rows), FILL_SIZE)])

    def go_on(self, block: Block, *, done: int) -> Tensor:
        """The outputs for the images of a block that holds what the first ``done`` links made of them."""
        positions = np.arange(len(block.values))
        parts = [positions[start : start + FILL_SIZE] for start in range(0, len(positions), FILL_SIZE)]
        return torch.cat(
            [self._run(block.outputs(np.resize(part, FILL_SIZE)), done=done)[: len(part)] for part in parts]
        )

    def _pass(self, rows: Rows) -> Tensor:
        return self._run(self.images(np.resize(rows, FILL_SIZE)), done=0)[: len(rows)]

    def _run(self, outputs: Tensor, *, done: int) -> Tensor:
        with torch.no_grad(), self.autocast(), resting(self.links):
            for link in self.links[done:]:
                outputs = link(outputs)
                if self.half:
                    outputs = outputs.clamp(-LARGEST_HALF, LARGEST_HALF).half().to(outputs.dtype)
        return outputs


class Kept:
    """The outputs of a prefix for some images, from their blocks; in memory where they are few."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._whole: Tensor | None = None
        if sum(block.values.nbytes for block in blocks) <= IN_MEMORY:
            self._whole = torch.cat([block.outputs(np.arange(len(block.values))) for block in blocks])

    @property
    def milliseconds(self) -> float:
        """What computing one image from its pixels took."""
        return self._blocks[0].milliseconds

    def at(self, positions: Rows) -> Tensor:
        """The outputs for the images at these positions."""
        if self._whole is not None:
            return self._whole[torch.from_numpy(positions)]
        first = self._blocks[0]
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
                ready.append(self._source.compute(wanted[start : start + FILL_SIZE]))
                start += FILL_SIZE
                self._spent.computing += time.perf_counter() - began
                self._spent.images += len(ready[-1])
            together = torch.cat(ready) if len(ready) > 1 else ready[0]
            yield together[: len(rows)]
            ready = [together[len(rows) :]] if len(together) > len(rows) else []


@dataclass(frozen=True)
class resting:  # noqa: N801 - reads as a statement
    """Inside, these modules are in eval mode."""

    modules: Sequence[nn.Module]
    was: dict[nn.Module, bool] = field(default_factory=dict)

    def __enter__(self) -> None:
        for module in self.modules:
            self.was.update({inner: inner.training for inner in module.modules()})
            module.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.was.items():
            module.training = training
