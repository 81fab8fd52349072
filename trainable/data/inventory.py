"""Takes stock of a data set by content, reading only the images that it does not know yet."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from trainable.atomic import write_beside
from trainable.data.fingerprint import NO_IMAGE, content_fingerprint, read_digests
from trainable.data.readers.arrow_files import load_own
from trainable.data.readers.sample import Sample, Source
from trainable.data.readers.storage import FileState, file_state, is_address

# An image written after it was read, but within the same tick of its file system's clock, looks as before. The coarsest
# clock, FAT's, ticks every 2 s. (Git calls such a file racily clean.)
TICK_NS = 2_000_000_000

SCHEMA = pa.schema(
    {
        "image": pa.binary(16),  # BLAKE3 of where the image is, and of size and date of the file that holds it
        "digest": pa.binary(32),  # BLAKE3 of the encoded image
    },
    metadata={"version": "1"},
)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a data set holds: of every sample of ``source.every_sample`` the BLAKE3 digest of its encoded image, 32 bytes.

    ``fingerprint`` is that of :func:`content_fingerprint`, ``num_read`` the number of images read to know it.
    """

    source: Source
    digests: list[bytes]
    fingerprint: str
    num_read: int


def take_inventory(source: Source, *, cache: Path) -> Inventory:
    """The content of a source that has just been read.

    The digest of an image whose name, file, size and date are those of an earlier call is taken from the file ``cache``,
    which is then replaced; without it, or with another file in its place, every image is read. It serves one data set,
    for one caller at a time, and holds no label.
    """
    samples = source.every_sample
    earlier = _load(cache)
    keys = _keys(samples, before_ns=time.time_ns() - TICK_NS)
    digests = [earlier.get(key) if key else None for key in keys]
    unknown = [row for row, digest in enumerate(digests) if digest is None]
    for row, digest in zip(unknown, read_digests([samples[row] for row in unknown]), strict=True):
        digests[row] = digest
    current = {key: digest for key, digest in zip(keys, digests, strict=True) if key and digest}
    if current != earlier:
        _save(current, path=cache)
    every = [digest or NO_IMAGE for digest in digests]
    return Inventory(
        source=source, digests=every, fingerprint=content_fingerprint(source, digests=every), num_read=len(unknown)
    )


def _keys(samples: Sequence[Sample], *, before_ns: int) -> list[bytes | None]:
    """What tells an image from its next version; None where nothing does, the file having been written too late."""
    states = {file: file_state(file) for file in {sample.file for sample in samples}}
    here = Path.cwd()
    return [_key(sample, state=states[sample.file], here=here, before_ns=before_ns) for sample in samples]


def _key(sample: Sample, *, state: FileState | None, here: Path, before_ns: int) -> bytes | None:
    if state is None or state.mtime_ns >= before_ns:
        return None
    file = sample.file if is_address(sample.file) else os.path.join(here, sample.file)  # noqa: PTH118 - as in folder
    text = f"{file}\0{sample.name}\0{state.size}\0{state.mtime_ns}"
    return bytes(blake3(os.fsencode(text)).digest(length=16))


def _load(cache: Path) -> dict[bytes, bytes]:
    try:
        table = load_own(cache, schema=SCHEMA)
    except (OSError, ValueError, pa.ArrowException):  # not there, cut off, or another kind of file
        return {}
    return dict(zip(table["image"].to_pylist(), table["digest"].to_pylist(), strict=True))


def _save(digests: Mapping[bytes, bytes], *, path: Path) -> None:
    columns = [pa.array(list(digests), SCHEMA.field(0).type), pa.array(list(digests.values()), SCHEMA.field(1).type)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as file:
        table = pa.table(columns, schema=SCHEMA)
        pq.write_table(table, file, compression="none", use_dictionary=False, write_page_checksum=True)
