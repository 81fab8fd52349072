"""Reads in which split the images of an earlier version of a data set were."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
from blake3 import blake3

from trainable.data.readers.arrow_files import load_listed
from trainable.data.readers.sample import SPLITS
from trainable.errors import UserError

GROUP = "group "  # before the name of a group, to tell it from an image that is its own

COLUMNS = pa.schema({"sample_id": pa.uint64(), "split": pa.string(), "group": pa.string()})

# Where images of one group were in several splits, which only a new grouping can bring about, the group goes where it
# leaves the earlier version's held-out images held out.
_STRONGEST = ("test", "val", "train")


def known_splits(
    path: str | None, *, groups: Sequence[str], sample_ids: Sequence[int], names: Sequence[str]
) -> dict[str, str]:
    """The earlier split of every group of images that the file at ``path`` knows, by an image's id or by the group.

    ``names`` are those of the splits in the file, in the order of ``SPLITS``. Empty without a path; raises UserError for a
    file that cannot be read.
    """
    if path is None:
        return {}
    by_image, by_group = _read(path, meaning=dict(zip(names, SPLITS, strict=True)))
    earlier: dict[str, str] = {}
    for group, sample_id in zip(groups, sample_ids, strict=True):
        places = (earlier.get(group), by_group.get(_hashed(group)), by_image.get(sample_id))
        splits = [split for split in places if split is not None]
        if splits:
            earlier[group] = strongest_split(splits)
    return earlier


def strongest_split(splits: Iterable[str]) -> str:
    """Of several splits the one in which images that were held out stay held out."""
    return min(splits, key=_STRONGEST.index)


def group_key(group: str | None) -> str | None:
    """What a file says of a group, whose name may be a patient's: 32 hex digits; None for an image that is its own."""
    return None if group is None else _hashed(f"{GROUP}{group}")


def kept_digest(path: str | None) -> str | None:
    """Changes with what such a file says; None without one."""
    if path is None or not Path(path).is_file():
        return None
    return str(blake3(Path(path).read_bytes()).hexdigest(length=16))


def _hashed(text: str) -> str:
    return str(blake3(text.encode()).hexdigest(length=16))


def _read(path: str, *, meaning: dict[str, str]) -> tuple[dict[int, str], dict[str, str]]:
    try:
        table = load_listed(Path(path), schema=COLUMNS, field="data.keep_splits")
        rows = [(meaning[split], row) for row, split in enumerate(table["split"].to_pylist()) if split in meaning]
        ids = table["sample_id"].to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"data.keep_splits: {path!r} is no Parquet file with the columns sample_id and split ({reason})"
        ) from error
    groups = table["group"].to_pylist() if "group" in table.column_names else [None] * len(ids)
    by_group: dict[str, str] = {}
    for split, row in rows:
        group = groups[row]
        if group is not None:
            by_group[group] = strongest_split([by_group.get(group, split), split])
    return {int(ids[row]): split for split, row in rows}, by_group
