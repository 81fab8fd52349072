"""Tells by a short text whether two data sets are the same."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3

from trainable.cpus import usable_cpus
from trainable.data.readers.sample import Sample, Source
from trainable.data.readers.storage import file_state

IMAGES_PER_TASK = 64  # handing a task to a thread takes longer than hashing a small image
NO_IMAGE = bytes(blake3(b"").digest())


def quick_key(source: Source, *, settings: Mapping[str, object]) -> str:
    """Changes with any file's path, size or modification time, or with a setting; reads no image."""
    files = {file: file_state(file) for file in source.files}
    text = json.dumps({"files": files, "settings": dict(settings)}, sort_keys=True)
    return str(blake3(text.encode()).hexdigest(length=16))


def content_fingerprint(source: Source, *, digests: Sequence[bytes] | None = None) -> str:
    """32 hex digits that change with any image, label or given split, not with names, dates or order.

    Labels that a domain to adapt to may have do not change it, but for an oracle.

    ``digests`` are those of :func:`image_digests` where they are known already. The sum keeps what a set would lose:
    how often an image is there.
    """
    samples = source.every_sample
    pairs = {(sample.label, sample.split) for sample in samples}
    texts = {label_and_split: json.dumps(label_and_split).encode() for label_and_split in pairs}
    total = 0
    for sample, digest in zip(samples, digests or image_digests(source), strict=True):
        text = texts[sample.label, sample.split]
        total += int.from_bytes(blake3(digest + text).digest(length=16), "little")
    return f"{total % 2**128:032x}"


def id_of(digest: bytes) -> int:
    """The id of an image, its ``sample_id``, from its digest."""
    return int.from_bytes(digest[:8], "little")


def image_digests(source: Source) -> list[bytes]:
    """The BLAKE3 hash, 32 bytes, of every sample's encoded image; ``NO_IMAGE`` where it cannot be read."""
    return [digest or NO_IMAGE for digest in read_digests(source.every_sample)]


def read_digests(samples: Sequence[Sample]) -> list[bytes | None]:
    """The BLAKE3 hash, 32 bytes, of every encoded image; None where it cannot be read."""
    tasks = [samples[start : start + IMAGES_PER_TASK] for start in range(0, len(samples), IMAGES_PER_TASK)]
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return [digest for digests in pool.map(_read_digests, tasks) for digest in digests]


def read_or_empty(sample: Sample) -> bytes:
    """The encoded image; no bytes, which no decoder accepts, where it cannot be read."""
    try:
        return sample.read_bytes()
    except OSError:
        return b""


def _read_digests(samples: Sequence[Sample]) -> list[bytes | None]:
    return [_read_digest(sample) for sample in samples]


def _read_digest(sample: Sample) -> bytes | None:
    try:
        return bytes(blake3(sample.read_bytes()).digest())
    except OSError:
        return None
