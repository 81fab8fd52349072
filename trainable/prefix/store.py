"""Keeps what frozen layers make of images on the disk, in blocks, for every process that names the folder."""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from trainable.atomic import make_private_folder, write_beside
from trainable.json_text import to_json

HEADER_BYTES = 1024
SUFFIX = ".block"
ASKED = ".asked"
SECONDS_ASKED = 86_400.0
LOCKS = 256  # for all blocks, so that locks do not pile up
SECONDS_OF_RENT = 3600.0  # a block that nobody used for so long is worth half of one that was used now
FREE_SHARE = 0.2  # of the disk, where no limit is given


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The outputs of a prefix for a few images, N first, float16 or float32.

    Their axes are in the ``order`` of the network's memory, which had them as ``dtype``; ``milliseconds`` is what computing
    one image from its pixels took.
    """

    values: NDArray[Any]
    order: tuple[int, ...]
    dtype: torch.dtype
    milliseconds: float

    def outputs(self, positions: NDArray[np.int64]) -> Tensor:
        """The outputs of these images as the network had them."""
        return self.as_they_were(torch.from_numpy(self.values[positions]))

    def as_they_were(self, kept: Tensor) -> Tensor:
        """Kept values of some images, on any device, as the network had them."""
        return kept.to(self.dtype).permute(sorted(range(len(self.order)), key=self.order.__getitem__))


def block_of(outputs: Tensor, *, half: bool, milliseconds: float) -> Block:
    """The block that keeps ``outputs``, whose values must be those of float16 where it is to be ``half``."""
    strides = outputs.stride()
    by_stride = sorted(range(outputs.dim()), key=lambda axis: -strides[axis])
    order = tuple(by_stride if by_stride[0] == 0 else range(outputs.dim()))
    kept = outputs.detach().permute(order).to(torch.float16 if half else torch.float32).contiguous().cpu()
    return Block(values=kept.numpy(), order=order, dtype=outputs.dtype, milliseconds=milliseconds)


@dataclass(frozen=True, kw_only=True)
class Store:
    """Blocks in files of ``folder`` that together take at most ``limit_bytes``, but for those being written.

    A file is read where its content has the digest that it says, and else made anew. Where there is no room, those go that save
    the least time for their bytes, one that nobody used for long before one in use; whoever has one mapped goes on reading it.
    """

    folder: Path
    limit_bytes: int
    seen: set[Path] = field(default_factory=set)

    def load(self, name: str) -> Block | None:
        """The block of this name, mapped; None where there is none, or no whole one."""
        path = self._path(name)
        try:
            header = _header(path)
            values = np.memmap(path, header["kept_as"], mode="r", offset=HEADER_BYTES, shape=tuple(header["shape"]))
            if path not in self.seen and _digest(values) != header["digest"]:
                return None
            os.utime(path)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        self.seen.add(path)
        dtype = getattr(torch, header["dtype"])
        return Block(
            values=values, order=tuple(header["order"]), dtype=dtype, milliseconds=float(header["milliseconds"])
        )

    @contextmanager
    def claimed(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Inside, nobody else computes this block; gives False at once where another does, unless it is to ``wait``."""
        make_private_folder(self.folder)
        lock = FileLock(self.folder / f"{int(blake3(name.encode()).hexdigest(length=2), 16) % LOCKS:02x}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def save(self, name: str, block: Block) -> bool:
        """Keep a block that was claimed; False where there is no room for it."""
        path, header = self._path(name), _encoded_header(block)
        make_private_folder(self.folder)
        with FileLock(self.folder / "room.lock"):
            if not self._make_room(len(header) + block.values.nbytes, worth=_worth(block), of=path):
                return False
        with write_beside(path) as file:
            file.write(header)
            file.write(np.ascontiguousarray(block.values).data)
        self.seen.add(path)
        return True

    def ask(self, name: str) -> None:
        """Let others know that somebody asks for outputs of this name."""
        make_private_folder(self.folder)
        with write_beside(self.folder / f"{name}{ASKED}"):
            pass

    def is_asked(self, name: str) -> bool:
        """Whether somebody did of late."""
        try:
            return time.time() - (self.folder / f"{name}{ASKED}").stat().st_mtime < SECONDS_ASKED
        except OSError:
            return False

    def has_room_for(self, num_bytes: int) -> bool:
        """Whether so many bytes of one view could be kept beside another one's."""
        return num_bytes <= self.limit_bytes / 2

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _make_room(self, size: int, *, worth: float, of: Path) -> bool:
        """Delete the views that are worth less, until there is room for the file ``of``, whose own view stays."""
        files = [path for path in self.folder.iterdir() if path.suffix in (SUFFIX, ".npy") and path != of]
        sizes = {path: path.stat().st_size for path in files if path.exists()}
        taken = sum(sizes.values())
        if taken + size <= self.limit_bytes:
            return True
        views: dict[str, list[Path]] = defaultdict(list)
        for path in sizes:
            views[_view(path)].append(path)
        worths = {view: _worth_now(paths) for view, paths in views.items() if view != _view(of)}
        for view in sorted(worths, key=worths.__getitem__):
            if worths[view] > worth:
                return False
            for path in views[view]:
                path.unlink(missing_ok=True)
                taken -= sizes[path]
            if taken + size <= self.limit_bytes:
                return True
        return False


def free_share(folder: Path) -> int:
    """Bytes for a store where no limit is given: a share of what is free on its disk, what it has already counted as free."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    disk = os.statvfs(existing)
    taken = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            taken += path.stat().st_size
    return int(FREE_SHARE * (disk.f_bavail * disk.f_frsize + taken))


def _view(path: Path) -> str:
    return path.name.partition("-")[0]


def _worth(block: Block) -> float:
    """Milliseconds saved for each byte read."""
    return block.milliseconds / (block.values.itemsize * math.prod(block.values.shape[1:]))


def _worth_now(paths: list[Path]) -> float:
    """What a view of these blocks is worth by now; nothing where that cannot be read."""
    try:
        header = _header(paths[0])
        idle = max(0.0, time.time() - max(path.stat().st_mtime for path in paths))
        bytes_each = int(np.dtype(header["kept_as"]).itemsize) * math.prod(map(int, header["shape"][1:]))
        saved: float = header["milliseconds"] / bytes_each
        return saved / (1 + idle / SECONDS_OF_RENT)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return 0.0


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        header = json.loads(file.read(HEADER_BYTES))
        if not isinstance(header, dict):
            raise ValueError("no block")
    return header


def _encoded_header(block: Block) -> bytes:
    header = {
        "shape": list(block.values.shape),
        "kept_as": block.values.dtype.str,
        "order": list(block.order),
        "dtype": str(block.dtype).removeprefix("torch."),
        "milliseconds": block.milliseconds,
        "digest": _digest(block.values),
    }
    return to_json(header).encode().ljust(HEADER_BYTES)


def _digest(values: NDArray[Any]) -> str:
    return str(blake3(np.ascontiguousarray(values).view(np.uint8).data).hexdigest(length=16))
