"""Builds the pack: reads, splits, decodes, writes every image of a data set once."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
from blake3 import blake3
from filelock import BaseFileLock, FileLock

from trainable.atomic import write_beside
from trainable.config.trial import NO_SAY_IN_IMAGES, DataConfig
from trainable.data.decode import BadImageError, Pixels, decode
from trainable.data.fingerprint import content_fingerprint, id_of, image_digests, read_or_empty
from trainable.data.input_spec import InputSpec
from trainable.data.kept_splits import GROUP, kept_digest, known_splits
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample, Source
from trainable.data.splits import cut_splits, cut_unlabelled
from trainable.errors import UserError

VERSION = 1  # of everything in this file and in decode.py that determines the pack's bytes
IMAGES_PER_RECORD_BATCH = 64

SCHEMA = pa.schema(
    {
        "image": pa.large_binary(),  # null where the image is bad
        "height": pa.int32(),  # 0 where the image is bad
        "width": pa.int32(),
        "label": pa.int16(),
        "split": pa.int8(),
        "group": pa.string(),
        "domain": pa.string(),
        "sample_id": pa.uint64(),
        "name": pa.string(),
    }
)


@dataclass(frozen=True)
class Row:
    """An image of the pack before it is decoded."""

    sample: Sample
    sample_id: int
    split: str


def pack_recipe(config: DataConfig, *, spec: InputSpec) -> dict[str, object]:
    """Every setting that has a say in the bytes of the pack."""
    return {
        **config.model_dump(exclude={*NO_SAY_IN_IMAGES, "rehearsal", "early_size", "image_size", "keep_splits"}),
        "keep_splits": kept_digest(config.keep_splits),
        "stored_side": spec.stored_side,
        "interpolation": spec.interpolation,
        "version": VERSION,
        "pillow": PIL.__version__,
    }


def building_lock(folder: Path) -> BaseFileLock:
    """Held by the one process that builds in ``folder``; the system lets it go when the process dies."""
    return FileLock(folder / "building.lock")


def build_pack(source: Source, *, config: DataConfig, spec: InputSpec, folder: Path) -> Path:
    """The pack's file in ``folder``, named by its content; not written again where it is there already."""
    digests = image_digests(source)
    _check_domains_differ(source, digests=digests)
    fingerprint = content_fingerprint(source, digests=digests)
    rows = assigned_rows(source, digests=digests, config=config)
    path = folder / f"{fingerprint[:16]}-{_content_key(rows, fingerprint=fingerprint, config=config, spec=spec)}.arrow"
    if not path.exists():
        _write(path, rows, source=source, fingerprint=fingerprint, config=config, spec=spec)
    return path


def assigned_rows(source: Source, *, digests: Sequence[bytes], config: DataConfig) -> list[Row]:
    """All images in canonical order, with their splits; equal images are one group where no other is given."""
    groups = [
        f"{GROUP}{sample.group}" if sample.group is not None else f"image {digest.hex()}"
        for sample, digest in zip(source.every_sample, digests, strict=True)
    ]
    ids = [id_of(digest) for digest in digests]
    num_labelled = len(source.samples)
    earlier_splits = partial(known_splits, config.keep_splits)
    splits = cut_splits(
        [sample.label or "" for sample in source.samples],
        groups=groups[:num_labelled],
        given=[sample.split for sample in source.samples],
        shares=_missing_shares(source.samples, config=config),
        seed=config.split_seed,
        known=earlier_splits(groups=groups[:num_labelled], sample_ids=ids[:num_labelled], names=SPLITS),
    )
    if source.target:
        cut = cut_unlabelled(
            groups=groups[num_labelled:],
            given=[sample.split for sample in source.target],
            shares=_missing_shares(source.target, config=config),
            seed=config.split_seed,
            known=earlier_splits(groups=groups[num_labelled:], sample_ids=ids[num_labelled:], names=TARGET_SPLITS),
        )
        splits += [TARGET_SPLITS[SPLITS.index(split)] for split in cut]
    rows = [Row(*parts) for parts in zip(source.every_sample, ids, splits, strict=True)]
    return sorted(rows, key=lambda row: (row.sample_id, row.sample.name))


def _missing_shares(samples: Sequence[Sample], *, config: DataConfig) -> dict[str, float]:
    """Shares of the splits that the samples do not bring themselves."""
    given = {sample.split for sample in samples}
    shares = {"test": config.test_share, "val": config.val_share}
    return {split: share for split, share in shares.items() if split not in given}


def _check_domains_differ(source: Source, *, digests: Sequence[bytes]) -> None:
    """A target that holds the source's images would be learnt with their labels."""
    of_source, of_target = set(digests[: len(source.samples)]), set(digests[len(source.samples) :])
    if of_target and of_target <= of_source:
        raise UserError("data.target: every image of it is among those of data.source; name another domain")


def _content_key(rows: Sequence[Row], *, fingerprint: str, config: DataConfig, spec: InputSpec) -> str:
    columns = [[row.sample_id, row.split, *_texts(row.sample)] for row in rows]
    recipe = pack_recipe(config, spec=spec)
    wanted = {name: recipe[name] for name in ("channels", "on_bad_image", "stored_side", "interpolation")}
    program = {name: recipe[name] for name in ("version", "pillow")}
    text = json.dumps([fingerprint, columns, wanted, program], sort_keys=True)
    return str(blake3(text.encode()).hexdigest(length=16))


def _texts(sample: Sample) -> list[str | None]:
    return [sample.name, sample.label, sample.group, sample.domain]


def _write(
    path: Path, rows: Sequence[Row], *, source: Source, fingerprint: str, config: DataConfig, spec: InputSpec
) -> None:
    described = {"classes": json.dumps(source.classes), "fingerprint": fingerprint, "channels": str(config.channels)}
    schema = SCHEMA.with_metadata({"version": str(VERSION), **described})
    read = partial(_read, channels=config.channels, side=spec.stored_side, interpolation=spec.interpolation)
    bad: list[tuple[Row, BadImageError]] = []
    with write_beside(path) as file:
        with pa.ipc.new_file(file, schema) as writer, ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(rows), IMAGES_PER_RECORD_BATCH):
                some = rows[start : start + IMAGES_PER_RECORD_BATCH]
                images = list(pool.map(read, some))
                bad += [
                    (row, image) for row, image in zip(some, images, strict=True) if isinstance(image, BadImageError)
                ]
                writer.write_batch(_record_batch(some, images, classes=source.classes, schema=schema))
        _check_bad_images(bad, rows=rows, source=source, config=config)


def _read(row: Row, *, channels: int, side: int, interpolation: str) -> Pixels | BadImageError:
    try:
        return decode(read_or_empty(row.sample), channels=channels, side=side, interpolation=interpolation)
    except BadImageError as error:
        return error


def _record_batch(
    rows: Sequence[Row], images: Sequence[Pixels | BadImageError], *, classes: Sequence[str], schema: pa.Schema
) -> pa.RecordBatch:
    shapes = [(0, 0) if isinstance(image, BadImageError) else image.shape[:2] for image in images]
    columns: dict[str, Iterator[Any]] = {
        "image": (None if isinstance(image, BadImageError) else image.tobytes() for image in images),
        "height": (height for height, _ in shapes),
        "width": (width for _, width in shapes),
        "label": (-1 if row.sample.label is None else classes.index(row.sample.label) for row in rows),
        "split": ((*SPLITS, *TARGET_SPLITS).index(row.split) for row in rows),
        "group": (row.sample.group for row in rows),
        "domain": (row.sample.domain for row in rows),
        "sample_id": (row.sample_id for row in rows),
        "name": (row.sample.name for row in rows),
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def bad_images_error(descriptions: Sequence[str]) -> UserError:
    """What the user hears of images that cannot be used, each told in words."""
    first = ", ".join(descriptions[:3]) + (", …" if len(descriptions) > 3 else "")
    return UserError(f"data.path: bad images ({len(descriptions)}): {first}; `data.on_bad_image: skip` leaves them out")


def _check_bad_images(
    bad: Sequence[tuple[Row, BadImageError]], *, rows: Sequence[Row], source: Source, config: DataConfig
) -> None:
    if bad and config.on_bad_image == "error":
        raise bad_images_error([f"{row.sample.name!r} ({error})" for row, error in bad])
    left_out = {id(row) for row, _ in bad}
    good = [row for row in rows if id(row) not in left_out]
    present = {(row.split, row.sample.label) for row in good}
    for split in SPLITS:
        for label in source.classes:
            if (split, label) not in present:
                raise UserError(f"data.path: class {label!r} has no image in {split} that can be used")
    for split in TARGET_SPLITS if source.target else ():
        if sum(row.split == split for row in good) < 2:  # of one, no statistic has a spread
            raise UserError(f"data.target: needs two images in its {split} split, there are too few that can be used")
