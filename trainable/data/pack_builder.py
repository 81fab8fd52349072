"""Builds the pack: reads, splits, decodes, writes every image of a data set once."""

import json
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
from trainable.cpus import usable_cpus
from trainable.data.decode import BadImageError, Decoded, decode_with_remarks
from trainable.data.fingerprint import content_fingerprint, image_digests, read_or_empty
from trainable.data.input_spec import InputSpec
from trainable.data.kept_splits import kept_digest
from trainable.data.readers.arrow_files import load_own
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample, Source
from trainable.data.report import DataReport, Look, bad_images_error, make_report
from trainable.data.rows import Assignment, Row, assign, lost_to_bad_images
from trainable.errors import UserError

VERSION = 2  # of everything in this file and in decode.py that determines the pack's bytes
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
        "remarks": pa.string(),  # what was lost or guessed or is wrong, kinds of findings with commas between them
        "fault": pa.string(),  # why the image is bad
    }
)


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


@dataclass(frozen=True, kw_only=True)
class Built:
    """The file of a pack, and what was noticed about the data set."""

    path: Path
    report: DataReport


def build_pack(source: Source, *, config: DataConfig, spec: InputSpec, folder: Path) -> Built:
    """The pack's file in ``folder``, named by its content; not written again where it is there already."""
    digests = image_digests(source)
    fingerprint = content_fingerprint(source, digests=digests)
    assignment = assign(source, digests=digests, config=config)
    assignment.check()
    key = _content_key(assignment.rows, fingerprint=fingerprint, config=config, spec=spec)
    path = folder / f"{fingerprint[:16]}-{key}.arrow"
    if not path.exists():
        _write(path, assignment, fingerprint=fingerprint, config=config, spec=spec)
    return Built(path=path, report=make_report(source, assignment=assignment, looks=_looks(path), config=config))


def _content_key(rows: Sequence[Row], *, fingerprint: str, config: DataConfig, spec: InputSpec) -> str:
    columns = [[row.sample_id, row.split, *_texts(row.sample)] for row in rows]
    recipe = pack_recipe(config, spec=spec)
    wanted = {name: recipe[name] for name in (*config.decoding, "on_bad_image", "stored_side", "interpolation")}
    program = {name: recipe[name] for name in ("version", "pillow")}
    text = json.dumps([fingerprint, columns, wanted, program], sort_keys=True)
    return str(blake3(text.encode()).hexdigest(length=16))


def _texts(sample: Sample) -> list[str | None]:
    return [sample.name, sample.label, sample.group, sample.domain]


def _write(path: Path, assignment: Assignment, *, fingerprint: str, config: DataConfig, spec: InputSpec) -> None:
    rows, classes = assignment.rows, assignment.classes
    described = {"classes": json.dumps(classes), "fingerprint": fingerprint, "channels": str(config.channels)}
    schema = SCHEMA.with_metadata({"version": str(VERSION), **described})
    read = partial(_read, side=spec.stored_side, interpolation=spec.interpolation, **config.decoding)
    bad: list[tuple[Row, BadImageError]] = []
    with write_beside(path) as file:
        with pa.ipc.new_file(file, schema) as writer, ThreadPoolExecutor(usable_cpus()) as pool:
            for start in range(0, len(rows), IMAGES_PER_RECORD_BATCH):
                some = rows[start : start + IMAGES_PER_RECORD_BATCH]
                images = list(pool.map(read, some))
                bad += [
                    (row, image) for row, image in zip(some, images, strict=True) if isinstance(image, BadImageError)
                ]
                writer.write_batch(_record_batch(some, images, classes=classes, schema=schema))
        _check_bad_images(bad, assignment=assignment, config=config)


def _read(row: Row, **settings: Any) -> Decoded | BadImageError:
    try:
        return decode_with_remarks(read_or_empty(row.sample), **settings)
    except BadImageError as error:
        return error


def _record_batch(
    rows: Sequence[Row], images: Sequence[Decoded | BadImageError], *, classes: Sequence[str], schema: pa.Schema
) -> pa.RecordBatch:
    good = [None if isinstance(image, BadImageError) else image for image in images]
    shapes = [(0, 0) if image is None else image.pixels.shape[:2] for image in good]
    columns: dict[str, Iterator[Any]] = {
        "image": (None if image is None else image.pixels.tobytes() for image in good),
        "height": (height for height, _ in shapes),
        "width": (width for _, width in shapes),
        "label": (-1 if row.sample.label is None else classes.index(row.sample.label) for row in rows),
        "split": ((*SPLITS, *TARGET_SPLITS).index(row.split) for row in rows),
        "group": (row.sample.group for row in rows),
        "domain": (row.sample.domain for row in rows),
        "sample_id": (row.sample_id for row in rows),
        "name": (row.sample.name for row in rows),
        "remarks": (",".join(image.remarks) or None if isinstance(image, Decoded) else image.kind for image in images),
        "fault": (str(image) if isinstance(image, BadImageError) else None for image in images),
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _looks(path: Path) -> Iterator[Look]:
    """What decoding noticed of every image of a pack."""
    table = load_own(path, schema=SCHEMA)
    columns = (table[name].to_pylist() for name in ("name", "remarks", "fault"))
    for name, remarks, fault in zip(*columns, strict=True):
        yield Look(name=name, remarks=tuple(remarks.split(",")) if remarks else (), fault=fault)


def _check_bad_images(bad: Sequence[tuple[Row, BadImageError]], *, assignment: Assignment, config: DataConfig) -> None:
    if bad and config.on_bad_image == "error":
        looks = [Look(name=row.sample.name, remarks=(error.kind,), fault=str(error)) for row, error in bad]
        raise bad_images_error(looks, config=config)
    lost = lost_to_bad_images(assignment.rows, bad={row.sample.name for row, _ in bad})
    if lost:
        raise UserError(lost[0].line())
