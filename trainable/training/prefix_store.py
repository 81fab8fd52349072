"""Keeps on disk what frozen prefixes make of images, so that each of them is computed once."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from blake3 import blake3
from filelock import BaseFileLock, FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from trainable.atomic import make_private_folder, write_beside
from trainable.config.trial import AugmentConfig, TrainConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, cache_errors
from trainable.loader.batches import Batch, Rows
from trainable.model.norms import OF_TARGET
from trainable.model.prefix_cut import Cut, Shape

VERSION = 1  # of everything between the pack and the stored bytes
FILL_SIZE = 32  # images of every forward pass: torch's convolutions give small batches, and no others, other last bits
LARGEST_SHARE = 0.25  # of the limit that one view may take: one to read and one to fill, for two trials at once
MIXING = {"mixup", "cutmix", "mix_probability", "mix_until"}  # what a view of one image knows nothing of


def fits(num_images: int, *, shape: Shape, limit_bytes: int) -> bool:
    """Whether a store of ``limit_bytes`` takes a view of images that each become numbers of this shape.

    It looks at no disk, so that what a trial does follows from its configuration and its data alone.
    """
    return _num_bytes(num_images, shape=shape) <= LARGEST_SHARE * limit_bytes


@dataclass(frozen=True)
class TrainingView:
    """How the training images of an epoch are varied; the program of ``augment.custom`` is not told from another."""

    augment: AugmentConfig
    seed: int
    epoch: int


def view_key(
    backbone: nn.Module,
    *,
    cut: Cut,
    architecture: str,
    spec: InputSpec,
    pack: Pack,
    train: TrainConfig,
    view: TrainingView | None,
) -> dict[str, object]:
    """Everything that determines the outputs of a prefix for a pack's images; no ``view`` is the evaluation view."""
    varied = view and [view.augment.model_dump(exclude=MIXING), view.seed, view.epoch]
    return {
        "architecture": architecture,
        "prefix": prefix_digest(backbone, cut=cut),
        "cut": [cut.entry, cut.order, str(cut.dtype)],
        "input": asdict(spec),
        "pack": pack.path.stem,
        "view": varied,
        "numerics": _numerics(next(backbone.parameters()).device, train=train),
    }


def prefix_digest(backbone: nn.Module, *, cut: Cut) -> str:
    """32 hex digits that change with any parameter or buffer of the prefix, not with what lies behind it.

    Statistics that batch norms keep for the domain they do not look at have no say.
    """
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    digest = blake3()
    for name in cut.tensors:
        if name.rpartition(".")[2] in OF_TARGET.values():
            continue
        values = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return str(digest.hexdigest(length=16))


@dataclass(frozen=True, eq=False)
class Stored:
    """The outputs N×``shape`` of a prefix for N images of a pack, mapped from a file; ``held`` are their rows, ascending."""

    outputs: NDArray[np.float32]
    held: Rows

    def rows(self, rows: Rows) -> Tensor:
        """A copy of the outputs for these rows of the pack, in their order."""
        positions = np.searchsorted(self.held, rows)
        assert np.array_equal(self.held[positions], rows)
        return torch.from_numpy(self.outputs[positions])


class StoredViews(Dataset[Batch]):
    """A loader's batches with stored outputs, float32 N×``shape``, in place of images.

    ``open_view`` gives those of an epoch; the newest stay open. Requests are (epoch, rows), ``labels`` the pack's.
    """

    def __init__(self, open_view: Callable[[int], Stored], *, labels: NDArray[np.int64]) -> None:
        self._open_view = lru_cache(maxsize=1)(open_view)
        self._labels = labels

    def __getitem__(self, request: tuple[int, Rows]) -> Batch:
        epoch, rows = request
        return Batch(self._open_view(epoch).rows(rows), torch.from_numpy(self._labels[rows]))


class PrefixStore:
    """Outputs of prefixes in files of ``folder``, one for each view, shared by every process that names the folder.

    Before a new file begins, the least recently used go until all fit into ``limit_bytes``; only where more are being
    filled at once than fit do they take more. Who has a file mapped goes on reading it.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def open(self, key: Mapping[str, object], *, rows: Rows, shape: Shape, compute: Callable[[Rows], Tensor]) -> Stored:
        """The outputs under ``key`` for ascending ``rows`` of a pack; the first who asks computes them, the others wait.

        ``compute`` gives them N×``shape``, float32, for N rows, always as many, of which the last may be there again.
        """
        path = self._folder / f"{_name(key, rows=rows, shape=shape)}.npy"
        with cache_errors(self._folder):
            outputs = _map(path)
            if outputs is None:
                make_private_folder(self._folder)
                with self._filling_lock(path):
                    while (outputs := _map(path)) is None:
                        self._fill(path, rows=rows, shape=shape, compute=compute)
        return Stored(outputs, rows)

    def _filling_lock(self, path: Path) -> BaseFileLock:
        """Held by the one process that fills a file; 256 for all of them, so that locks do not pile up."""
        return FileLock(self._folder / f"{path.name[:2]}.lock")

    def _fill(self, path: Path, *, rows: Rows, shape: Shape, compute: Callable[[Rows], Tensor]) -> None:
        with write_beside(path) as file:
            self._reserve(file, whole=(len(rows), *shape))
            for start in range(0, len(rows), FILL_SIZE):
                some = rows[start : start + FILL_SIZE]
                with torch.no_grad():
                    outputs = compute(np.resize(some, FILL_SIZE))[: len(some)]
                assert outputs.shape[1:] == shape
                assert outputs.dtype == torch.float32
                file.write(outputs.cpu().contiguous().numpy().data)

    def _reserve(self, file: BinaryIO, *, whole: Shape) -> None:
        """Begin a file and let it count as large as it will be."""
        header = {"descr": "<f4", "fortran_order": False, "shape": whole}
        with FileLock(self._folder / "room.lock"):
            np.lib.format.write_array_header_1_0(file, header)
            size = file.tell() + _num_bytes(whole[0], shape=whole[1:])
            self._make_room(size, beside=Path(file.name))
            file.truncate(size)

    def _make_room(self, size: int, *, beside: Path) -> None:
        self._delete_leftovers(beside)
        sizes = {path: status.st_size for path, status in _by_last_use(self._folder) if path != beside}
        taken = sum(sizes.values())
        for path in sizes:
            if path.suffix == ".npy" and taken + size > self._limit_bytes:
                path.unlink(missing_ok=True)
                taken -= sizes[path]

    def _delete_leftovers(self, beside: Path) -> None:
        """Delete what killed processes left unfinished: nobody holds its lock."""
        for path in self._folder.glob("*.tmp"):
            try:
                with self._filling_lock(path).acquire(timeout=0):
                    path.unlink(missing_ok=True)
            except Timeout:  # being filled, ``beside`` too
                continue


def _num_bytes(num_images: int, *, shape: Shape) -> int:
    return 4 * num_images * prod(shape)


def _numerics(device: torch.device, *, train: TrainConfig) -> dict[str, object]:
    """What the last bits of an output depend on besides the weights."""
    processor: list[object] = [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    if device.type == "cuda":
        processor = [torch.cuda.get_device_name(device), torch.version.cuda, torch.backends.cudnn.version()]  # type: ignore[no-untyped-call]
    programs = {name: metadata.version(name) for name in ("torch", "torchvision", "timm")}
    return {"processor": processor, "amp": train.amp, "channels_last": train.channels_last, **programs}


def _name(key: Mapping[str, object], *, rows: Rows, shape: Shape) -> str:
    held = blake3(rows.astype("<i8").tobytes()).hexdigest(length=16)
    text = json.dumps([VERSION, dict(key), held, shape], sort_keys=True)
    return str(blake3(text.encode()).hexdigest(length=16))


def _map(path: Path) -> NDArray[np.float32] | None:
    """The array of a file, which counts as used now; None where there is no such file, or no longer."""
    try:
        os.utime(path)
        outputs: NDArray[np.float32] = np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError:
        return None
    return outputs


def _by_last_use(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The store's files, the least recently used first."""
    files = []
    for path in [*folder.glob("*.npy"), *folder.glob("*.tmp")]:
        try:
            files.append((path, path.stat()))
        except FileNotFoundError:
            continue
    return sorted(files, key=lambda entry: entry[1].st_mtime_ns)
