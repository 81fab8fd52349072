"""Versions of a data set: which image, by hash, was of which class, in which group and split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainable.atomic import write_beside
from trainable.config.trial import DataConfig
from trainable.data.kept_splits import group_key
from trainable.data.readers.arrow_files import load_listed
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Source
from trainable.data.rows import assigned_rows
from trainable.errors import UserError

SCHEMA = pa.schema(
    {
        "sample_id": pa.uint64(),
        "label": pa.string(),  # null for an image of a domain to adapt to
        "group": pa.string(),  # by hash; null where an image is its own group
        "split": pa.string(),
        "present": pa.bool_(),  # whether this version has it; else an earlier one had
    }
)
COLUMNS = tuple(SCHEMA.names)
MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image of a version; its ``label`` is None where it is not known."""

    sample_id: int
    label: str | None
    group: str | None
    split: str
    present: bool = True


@dataclass(frozen=True)
class Version:
    """All images that a version has, and those that an earlier one had: they keep their split should they come back."""

    entries: tuple[Entry, ...]

    @property
    def present(self) -> list[Entry]:
        """The labelled images that this version has."""
        return [entry for entry in self.entries if entry.present and entry.split in SPLITS]

    @property
    def num_target(self) -> int:
        """Images of a domain to adapt to."""
        return len(self.ids(*TARGET_SPLITS))

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(sorted(Counter(str(entry.label) for entry in self.present).items()))

    def ids(self, *splits: str) -> set[int]:
        """The ids of the images it has in these splits."""
        return {entry.sample_id for entry in self.entries if entry.present and entry.split in splits}

    def write(self, path: Path) -> None:
        """Write it as Parquet, whole or not at all; the file is what ``data.keep_splits`` takes."""
        columns = {name: [getattr(entry, name) for entry in self.entries] for name in COLUMNS}
        with write_beside(path) as file:
            pq.write_table(pa.table(columns, schema=SCHEMA), file)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What changed from one version to the next; labelled images, counted by class.

    ``target_…`` count images of a domain to adapt to. ``relabelled`` counts by ``old -> new``, and is None where the labels of
    the earlier version are not known; ``resplit`` counts images that the data set itself now gives another split; ``bad`` names
    those that cannot be decoded.
    """

    num_before: int
    num_now: int
    added: Mapping[str, int]
    removed: Mapping[str, int]
    relabelled: Mapping[str, int] | None
    resplit: int
    new_classes: tuple[str, ...]
    vanished_classes: tuple[str, ...]
    bad: tuple[str, ...] = ()
    target_before: int = 0
    target_added: int = 0
    target_removed: int = 0

    @property
    def num_changed(self) -> int:
        """Images that came, went, or are of another class now."""
        labelled = sum(self.added.values()) + sum(self.removed.values()) + sum((self.relabelled or {}).values())
        return labelled + self.target_added + self.target_removed

    @property
    def only_removed(self) -> bool:
        """Whether images went, and nothing else is known to have happened."""
        others = self.added or self.target_added or self.resplit or self.relabelled is None or self.relabelled
        return bool(self.removed or self.target_removed) and not others

    @property
    def share_changed(self) -> float:
        """Of the images that there were."""
        return self.num_changed / max(1, self.num_before + self.target_before)

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    def said(self) -> str:
        """In words, one line."""
        parts = [f"{self.num_before} -> {self.num_now} images"]
        parts += [
            f"{word} {sum(counts.values())} ({_listed(counts)})"
            for word, counts in (("added", self.added), ("removed", self.removed))
            if counts
        ]
        if self.relabelled is None:
            parts.append("earlier labels not known")
        elif self.relabelled:
            parts.append(f"relabelled {sum(self.relabelled.values())} ({_listed(self.relabelled)})")
        if self.resplit:
            parts.append(f"{self.resplit} in another given split")
        for word, names in (("new", self.new_classes), ("vanished", self.vanished_classes)):
            if names:
                parts.append(f"{word} classes {', '.join(map(repr, names))}")
        if self.target_added or self.target_removed:
            parts.append(f"to adapt to: added {self.target_added}, removed {self.target_removed}")
        if self.bad:
            more = ", …" if len(self.bad) > MOST_NAMED else ""
            parts.append(f"{len(self.bad)} bad images ({', '.join(self.bad[:MOST_NAMED])}{more})")
        return ", ".join(parts)


def version_of(source: Source, *, digests: Sequence[bytes], config: DataConfig) -> Version:
    """The version that these samples are, split as training splits them; images of ``config.keep_splits`` that are gone stay
    known. Raises UserError where no splits can be cut.
    """
    rows = assigned_rows(source, digests=digests, config=config)
    now = [
        Entry(
            sample_id=row.sample_id,
            label=row.sample.label,
            group=group_key(row.sample.group),
            split=row.split,
        )
        for row in rows
    ]
    there = {entry.sample_id for entry in now}
    before = [] if config.keep_splits is None else read_version(Path(config.keep_splits)).entries
    gone = [
        Entry(sample_id=entry.sample_id, label=entry.label, group=entry.group, split=entry.split, present=False)
        for entry in before
        if entry.sample_id not in there
    ]
    return Version((*now, *gone))


def read_version(path: Path) -> Version:
    """A version that was written, or what a packaged model tells of its images. Raises UserError for another file."""
    try:
        table = load_listed(path, schema=SCHEMA, field="data version")
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"data version: {str(path)!r} cannot be read ({reason})") from error
    num_rows = table.num_rows
    nothing: list[Any] = [None] * num_rows
    columns = {name: table[name].to_pylist() if name in table.column_names else nothing for name in COLUMNS[:-1]}
    present = table["present"].to_pylist() if "present" in table.column_names else [True] * num_rows
    rows = zip(*columns.values(), present, strict=True)
    return Version(tuple(Entry(**dict(zip(COLUMNS, row, strict=True))) for row in rows))


def difference(before: Version, now: Version, *, bad: Sequence[str] = (), classes: Sequence[str] = ()) -> Difference:
    """What changed between two versions, told by the content of the images alone; ``classes`` are known to have been before."""
    old = {entry.sample_id: entry for entry in before.present}
    new = {entry.sample_id: entry for entry in now.present}
    both = old.keys() & new.keys()
    is_labelled = all(entry.label is not None for entry in old.values())
    relabelled = Counter(
        f"{old[key].label} -> {new[key].label}" for key in both if is_labelled and old[key].label != new[key].label
    )
    classes_before, classes_now = (
        {entry.label for entry in entries.values() if entry.label is not None} for entries in (old, new)
    )
    classes_before |= set(classes)
    return Difference(
        num_before=len(before.present),
        num_now=len(now.present),
        added=_by_class(new[key] for key in new.keys() - old.keys()),
        removed=_by_class(old[key] for key in old.keys() - new.keys()),
        relabelled=dict(sorted(relabelled.items())) if is_labelled else None,
        resplit=sum(old[key].split != new[key].split for key in both),
        new_classes=tuple(sorted(classes_now - classes_before)) if classes_before else (),
        vanished_classes=tuple(sorted(classes_before - classes_now)),
        bad=tuple(bad),
        target_before=before.num_target,
        target_added=len(now.ids(*TARGET_SPLITS) - before.ids(*TARGET_SPLITS)),
        target_removed=len(before.ids(*TARGET_SPLITS) - now.ids(*TARGET_SPLITS)),
    )


def _by_class(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(sorted(Counter(str(entry.label) for entry in entries).items()))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
