"""Opens a data set as decoded images in one memory-mapped file."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainable.atomic import OF_DISK, make_private_folder, write_beside
from trainable.config.trial import DataConfig
from trainable.data.decode import Pixels
from trainable.data.fingerprint import quick_key
from trainable.data.image_guard import check_held
from trainable.data.input_spec import InputSpec
from trainable.data.pack_builder import SCHEMA, build_pack, building_lock, pack_recipe
from trainable.data.readers.arrow_files import load_own
from trainable.data.readers.folder import read_unlabelled
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Source
from trainable.errors import OutageError, UserError
from trainable.json_text import to_json

FINGERPRINT_DIGITS = 16  # of the fingerprint, with which the name of a pack begins
PACK_NAME = re.compile(rf"[0-9a-f]{{{FINGERPRINT_DIGITS}}}-[0-9a-f]{{32}}\.arrow")


def open_pack(config: DataConfig, spec: InputSpec, *, field: str = "path") -> "Pack":
    """Every image of ``config`` decoded for ``spec``, built by the first who asks and mapped by everyone.

    Where neither files nor settings changed since the last call, no image is read. Raises UserError where the
    data set or the cache cannot be used, or an image of it while ``config.on_bad_image`` is `error`, OutageError where the
    cache's disk is full, and ImagesChangedError where the images are not those that :func:`held_to` allows for the ``field``
    of `data` that names them.
    """
    pack = _open(read_source(config), config=config, spec=spec, recipe=pack_recipe(config, spec=spec))
    check_held(pack.fingerprint, field=field)
    return pack


def open_unlabelled(config: DataConfig, spec: InputSpec, *, field: str = "data.path") -> "Pack":
    """Every image below the folder ``config.path``, which ``field`` names, as a pack whose labels and splits mean nothing."""
    recipe = {**pack_recipe(config, spec=spec), "labels": "none"}  # the same files may be a labelled pack too
    return _open(read_unlabelled(config, field=field), config=config, spec=spec, recipe=recipe)


def _open(source: Source, *, config: DataConfig, spec: InputSpec, recipe: dict[str, object]) -> "Pack":
    folder = cache_folder(config)
    index = folder / f"{quick_key(source, settings=recipe)}.index"
    with cache_errors(folder):
        path = _indexed(index)
        if path is None:
            make_private_folder(folder)
            with building_lock(folder):
                path = _indexed(index)
                if path is None:
                    built = build_pack(source, config=config, spec=spec, folder=folder)
                    path = built.path
                    for beside, text in ((_report_file(index), to_json(built.report.as_dict())), (index, path.name)):
                        with write_beside(beside) as file:
                            file.write(text.encode())
        return Pack(path, report=_report_file(index))


def cache_folder(config: DataConfig) -> Path:
    """``config.cache``, else `trainable` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if config.cache is not None:
        return Path(config.cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainable"


def _report_file(index: Path) -> Path:
    return index.with_suffix(".report.json")


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Inside, that a file of the cache in ``folder`` cannot be used is one line.

    It is an OutageError where the disk is full or fails, else a UserError.
    """
    try:
        yield
    except OSError as error:
        of_disk = error.errno in (*OF_DISK, errno.EFBIG)
        advice = "free space there, or name another folder" if of_disk else "name a folder that can be written to"
        raise (OutageError if of_disk else UserError)(
            f"data.cache: cannot use {folder} ({error.strerror or error}); {advice}"
        ) from error


def _indexed(index: Path) -> Path | None:
    """The pack that an index names: one beside it, whatever somebody else may have written there."""
    if not index.is_file():
        return None
    name = index.read_bytes().decode(errors="replace")
    path = index.parent / name
    return path if PACK_NAME.fullmatch(name) and path.is_file() else None


class Pack:
    """The decoded images of a data set in an order that follows from their content alone.

    ``classes`` are sorted names, a label is an index into them, -1 where it is not known. ``bad_images`` are the names of
    those left out.
    ``names``, ``labels``, ``sample_ids``, ``groups`` and ``domains`` hold a value an image; groups and domains are None
    where not given. It is pickled as its ``path`` and maps the file anew where it is unpickled. Raises UserError for a file that
    is no pack, or of other images than its name says.
    """

    def __init__(self, path: Path, *, report: Path | None = None) -> None:
        self._report = report
        table, described = _load(path)
        good = table["height"].to_numpy() > 0
        self.path = path
        self.classes: tuple[str, ...] = tuple(json.loads(described["classes"]))
        self.fingerprint = described["fingerprint"]
        self.labels: NDArray[np.int64] = table["label"].to_numpy()[good].astype(np.int64)
        self.sample_ids: NDArray[np.uint64] = table["sample_id"].to_numpy()[good]
        self.names, self.groups, self.domains = (
            _texts(table[column], where=good) for column in ("name", "group", "domain")
        )
        self.bad_images: tuple[str, ...] = tuple(str(name) for name in _texts(table["name"], where=~good))
        self._splits = table["split"].to_numpy()[good]
        self._images = _Images(table, where=good)

    def __reduce__(self) -> tuple[Callable[[Path], "Pack"], tuple[Path]]:
        return Pack, (self.path,)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def report(self) -> dict[str, Any]:
        """What was noticed about the data set, a :class:`DataReport` as plain data; empty where it was not noted."""
        if self._report is None or not self._report.is_file():
            return {}
        document: dict[str, Any] = json.loads(self._report.read_text())
        return document

    def indices(self, split: str) -> NDArray[np.int64]:
        """The images of `train`, `val` or `test`, of `target`, `target_val` or `target_test`, ascending."""
        return np.flatnonzero(self._splits == (*SPLITS, *TARGET_SPLITS).index(split))

    def image(self, index: int) -> Pixels:
        """H×W×C, a read-only view of the file."""
        return self._images[index]

    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled images a class in every split."""
        by_split = {
            split: np.bincount(self.labels[self.indices(split)], minlength=len(self.classes)) for split in SPLITS
        }
        return {split: dict(zip(self.classes, numbers.tolist(), strict=True)) for split, numbers in by_split.items()}


def _load(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """A pack's columns, with what it says of itself."""
    try:
        table = load_own(path, schema=SCHEMA)
        described = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if described["fingerprint"][:FINGERPRINT_DIGITS] != path.name[:FINGERPRINT_DIGITS]:
            raise pa.ArrowInvalid("it is of other images than its name says")
    except (OSError, LookupError, ValueError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"data.cache: {str(path)!r} is no whole pack ({reason}); delete it") from error
    return table, described


class _Images:
    """The image column as arrays, without Arrow's cost of a scalar a row."""

    def __init__(self, table: pa.Table, *, where: NDArray[np.bool_]) -> None:
        buffers = [chunk.buffers() for chunk in table["image"].chunks]
        lengths = [len(chunk) for chunk in table["image"].chunks]
        starts = [np.frombuffer(buffer[1], np.int64)[:length] for buffer, length in zip(buffers, lengths, strict=True)]
        self.data = [np.frombuffer(buffer[2] or b"", np.uint8) for buffer in buffers]
        self.chunks = np.repeat(np.arange(len(lengths)), lengths)[where]
        self.starts = np.concatenate(starts)[where]
        self.heights = table["height"].to_numpy()[where]
        self.widths = table["width"].to_numpy()[where]
        self.channels = int(table.schema.metadata[b"channels"])

    def __getitem__(self, index: int) -> Pixels:
        start, height, width = int(self.starts[index]), int(self.heights[index]), int(self.widths[index])
        data = self.data[self.chunks[index]][start : start + height * width * self.channels]
        pixels: Pixels = data.reshape(height, width, self.channels)
        return pixels


def _texts(column: pa.ChunkedArray, *, where: NDArray[np.bool_]) -> list[str | None]:
    return [text for text, wanted in zip(column.to_pylist(), where.tolist(), strict=True) if wanted]
