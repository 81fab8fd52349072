"""What a data source is once it has been read: labelled samples whose bytes are still where they were."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trainable.errors import UserError, nearest

SPLITS = ("train", "val", "test")
TARGET_SPLITS = ("target", "target_val", "target_test")  # of the domain to adapt to, in the order of SPLITS
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


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
    """What a reader finds: samples, and paths or addresses of the files whose change means that they changed."""

    samples: list[Sample]
    files: list[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """All samples of a data set, and the paths or addresses of the ``files`` whose change means that it changed.

    ``target`` are images of the domain to adapt to; their labels are None but in an oracle's run. ``notes`` are lines for
    the user.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    files: tuple[str, ...]
    target: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()

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


def make_source(samples: Sequence[Sample], *, files: Iterable[str]) -> Source:
    """The source of these labelled samples; a UserError where no classifier could be trained and judged on them."""
    if not samples:
        raise UserError("data.path: there are no images")
    source = Source(
        samples=tuple(samples), classes=tuple(sorted({sample.label or "" for sample in samples})), files=tuple(files)
    )
    if len(source.classes) == 1:
        raise UserError(f"data.path: {source.classes[0]!r} is the only class; a classifier needs two")
    _check_splits(source)
    _check_groups(source)
    return source


def split_of(name: str, *, field: str) -> str:
    """The split that a folder or a column value names."""
    if name not in SPLIT_NAMES:
        hint = nearest(name.lower(), SPLIT_NAMES)
        raise UserError(f"{field}: {name!r} is no split, expected train, val or test{hint}")
    return SPLIT_NAMES[name]


def _read_file(file: str) -> bytes:
    return Path(file).read_bytes()


def _check_splits(source: Source) -> None:
    given = source.given_splits
    if given and "train" not in given:
        raise UserError(f"data.path: there is {' and '.join(given)} but no train")
    counts = source.counts()
    for split in given:
        for label in source.classes:
            if not counts[split][label]:
                there = next(other for other in given if counts[other][label])
                hint = nearest(label, [name for name, number in counts[split].items() if number])
                raise UserError(f"data.path: class {label!r} is in {there} but not in {split}{hint}")


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
