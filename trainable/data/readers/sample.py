"""What a data source is once it has been read: labelled samples whose bytes are still where they were."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trainable.data.readers.findings import Finding
from trainable.errors import UserError, nearest

SPLITS = ("train", "val", "test")
TARGET_SPLITS = ("target", "target_val", "target_test")  # of the domain to adapt to, in the order of SPLITS
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image, its ``name`` its path or row for messages; split, group and domain are None where not given.

    So is the label of an image of a domain to adapt to. ``file`` is the path or the address of the file that holds the
    image: its own, or a table's. ``read_bytes`` gives the encoded image and raises OSError where there is none.
    """

    name: str
    label: str | None
    split: str | None
    group: str | None
    domain: str | None
    file: str
    read_bytes: Callable[[], bytes]


class Found(NamedTuple):
    """What a reader finds: samples, and paths or addresses of the files whose change means that they changed.

    ``left_out`` counts the files that are no samples by reason.
    """

    samples: list[Sample]
    files: list[str]
    findings: tuple[Finding, ...] = ()
    left_out: Mapping[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class Source:
    """All samples of a data set, and the paths or addresses of the ``files`` whose change means that it changed.

    ``target`` are images of the domain to adapt to; their labels are None but in an oracle's run. ``findings`` are what was
    noticed when it was read, ``left_out`` counts files that are no samples by reason.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    files: tuple[str, ...]
    target: tuple[Sample, ...] = ()
    findings: tuple[Finding, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def every_sample(self) -> tuple[Sample, ...]:
        """Labelled samples, then those of the target."""
        return self.samples + self.target

    @property
    def given_splits(self) -> tuple[str, ...]:
        """The splits the data set brings itself, in the order of ``SPLITS``."""
        present = {sample.split for sample in self.samples}
        return tuple(split for split in SPLITS if split in present)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images a class in every given split, or under ``all`` where none is given."""
        numbers = Counter((sample.split or "all", sample.label) for sample in self.samples)
        return {name: {label: numbers[name, label] for label in self.classes} for name in self.given_splits or ("all",)}


def file_reader(file: str) -> Callable[[], bytes]:
    """What reads the bytes of an image that is a file of its own."""
    return partial(_read_file, file)


def make_source(data: Found) -> Source:
    """The source of labelled samples; a UserError where no classifier could be trained and judged on them."""
    if not data.samples:
        raise UserError("data.path: there are no images")
    source = Source(
        samples=tuple(data.samples),
        classes=tuple(sorted({sample.label or "" for sample in data.samples})),
        files=tuple(data.files),
        findings=data.findings,
        left_out=data.left_out,
    )
    if len(source.classes) == 1:
        raise UserError(f"data.path: {source.classes[0]!r} is the only class; a classifier needs two")
    if source.given_splits and "train" not in source.given_splits:
        raise UserError(f"data.path: there is {' and '.join(source.given_splits)} but no train")
    _check_groups(source)
    return source


def split_of(name: str, *, field: str) -> str:
    """The split that a column value names, in any case."""
    key = name.strip().lower()
    if key not in SPLIT_NAMES:
        hint = nearest(key, SPLIT_NAMES)
        raise UserError(f"{field}: {name!r} is no split, expected train, val or test{hint}")
    return SPLIT_NAMES[key]


def split_in_name(name: str) -> str | None:
    """The split that the name of a folder begins or ends with: `Training`, `seg_train`, `valid_images`."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    splits = {SPLIT_NAMES[word] for word in (words[:1] + words[-1:]) if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 and len(words) <= 3 else None


def plain_label(label: str) -> str:
    """The name of a class without what one does not see: case, blanks around and doubled, Unicode form, a number's `.0`."""
    plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return re.sub(r"^(-?\d+)\.0+$", r"\1", plain)


def _read_file(file: str) -> bytes:
    return Path(file).read_bytes()


def _check_groups(source: Source) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for sample in source.samples:
        if sample.group is not None and sample.split is not None:
            splits[sample.group].add(sample.split)
    straddling = sorted(group for group, group_splits in splits.items() if len(group_splits) > 1)
    if straddling:
        where = " and ".join(split for split in SPLITS if split in splits[straddling[0]])
        number = len(straddling)
        raise UserError(f"data.group_column: group {straddling[0]!r} is in {where}; groups in several splits: {number}")
