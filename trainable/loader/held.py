"""The images of a pack in the memory of a GPU, where they fit."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainable.data.pack import Pack

SHARE = 0.2  # of what is free on a GPU: other trials in fractions of it, and what this one computes, need the rest
COPIED_BYTES = 64_000_000  # at once
PACKS_HELD = 2  # in a process: the images at a trial's two sizes

_held: OrderedDict[tuple[Path, torch.device], "HeldImages"] = OrderedDict()


def fits_on_device(num_bytes: int, *, free_bytes: int, share: float = SHARE, held_bytes: int = 0) -> bool:
    """Whether so many bytes fit in a share of what is free, of which others of their kind hold some already."""
    return held_bytes + num_bytes <= share * (free_bytes + held_bytes)


def free_bytes(device: torch.device) -> int:
    """What is free on a GPU, within this process's share of it; what torch keeps for itself unused included.

    0 on a CPU, where files are mapped anyway.
    """
    if device.type != "cuda":
        return 0
    reserved, (free, total) = torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)
    of_share = int(total * torch.cuda.get_per_process_memory_fraction(device)) - reserved
    return max(0, min(free, of_share)) + reserved - torch.cuda.memory_allocated(device)


class HeldImages:
    """The images of a pack on a device, one after the other in one flat tensor.

    They have heights and widths of their own: padded to the largest, one long panorama would multiply the memory. What a batch
    shows of them is cut out by their offsets, and padded for that batch alone.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        images = [pack.image(row) for row in range(len(pack))]
        self._shapes = [image.shape for image in images]
        self._starts = np.cumsum([0, *(image.size for image in images)]).tolist()
        self._bytes = torch.empty(self._starts[-1], dtype=torch.uint8, device=device)
        first = 0
        while first < len(images):
            last = int(np.searchsorted(self._starts, self._starts[first] + COPIED_BYTES, side="right")) - 1
            last = max(first + 1, last)
            part = np.concatenate([image.reshape(-1) for image in images[first:last]])
            self._bytes[self._starts[first] : self._starts[last]] = torch.from_numpy(part)
            first = last

    @property
    def num_bytes(self) -> int:
        """What they take."""
        return len(self._bytes)

    def image(self, row: int) -> Tensor:
        """H×W×C, a view of what is held."""
        return self._bytes[self._starts[row] : self._starts[row + 1]].view(self._shapes[row])


def hold(pack: Pack, device: torch.device) -> HeldImages | None:
    """The images of a pack on a GPU, held for every later trial of this process too; None on a CPU or where they do not fit."""
    key = (pack.path, device)
    if key in _held:
        _held.move_to_end(key)
        return _held[key]
    wanted = sum(pack.image(row).size for row in range(len(pack))) if device.type == "cuda" else 0
    while len(_held) >= PACKS_HELD:
        _held.popitem(last=False)
    others = sum(images.num_bytes for images in _held.values())
    if not wanted or not fits_on_device(wanted, free_bytes=free_bytes(device), held_bytes=others):
        return None
    _held[key] = HeldImages(pack, device)
    return _held[key]
