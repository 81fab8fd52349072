"""Reports on a data set: how it was understood, what is used of it, what should be known about it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from blake3 import blake3

from trainable.config.trial import DataConfig
from trainable.cpus import usable_cpus
from trainable.data.decode import BadImageError, load
from trainable.data.fingerprint import NO_IMAGE, read_or_empty
from trainable.data.readers.findings import KINDS, Finding, counted
from trainable.data.readers.read import data_format, read_source
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample, Source
from trainable.data.rows import Assignment, Row, assign, lost_to_bad_images
from trainable.errors import SettingsError

IMAGES_PER_TASK = 32
MOST_CLASSES = 12  # that are counted by name in a line
DROPPED = "by data.duplicates or data.rare"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What decoding noticed of one image: kinds of findings, and why it is bad where it is."""

    name: str
    remarks: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What there is to know about a data set before anything is trained on it.

    ``counts`` are images by class in every split, under ``all`` where a mistake leaves none; ``target`` those of a domain to
    adapt to by split; ``cut`` the splits that the data do not bring; ``known_in_test`` test images that are in train or
    val as well. Files are ``used``, ``bad`` or ``left_out`` for a reason.
    """

    path: str
    format: str
    files: int
    used: int
    bad: int
    left_out: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    cut: tuple[str, ...]
    target: Mapping[str, int]
    known_in_test: int
    findings: tuple[Finding, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(next(iter(self.counts.values())))

    @property
    def mistakes(self) -> list[str]:
        """A line for each finding that stops training."""
        return [finding.line() for finding in self.findings if finding.is_mistake]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        findings = [finding.as_dict() for finding in self.findings]
        return asdict(self) | {"cut": list(self.cut), "findings": findings, "lines": self.lines()}

    def lines(self) -> list[str]:
        """The report in words: a line for what there is, one for the splits, one for the classes, a note for each finding.

        Mistakes are not among them.
        """
        not_used = {reason: count for reason, count in {"bad": self.bad, **self.left_out}.items() if count}
        listed = ", ".join(
            f"{reason} {count}" for reason, count in sorted(not_used.items(), key=lambda c: (-c[1], c[0]))
        )
        left_out = f"; left out {sum(not_used.values())} of {self.files} files: {listed}" if not_used else ""
        lines = [
            f"{self.used} images of {len(self.classes)} classes{left_out}",
            *self._split_lines(),
            self._class_line(),
        ]
        notes = [_short(note).line() for note in self.findings if not note.is_mistake]
        return [*lines, *(f"note: {line}" for line in notes)]

    def _split_lines(self) -> list[str]:
        target = ", ".join(f"{split} {count}" for split, count in self.target.items())
        to_adapt_to = [f"to adapt to: {target}"] if target else []
        if "all" in self.counts:
            return to_adapt_to
        splits = ", ".join(f"{split} {sum(classes.values())}" for split, classes in self.counts.items())
        cut = f" ({' and '.join(self.cut)} cut by data.split_seed)" if self.cut else " (as given)"
        return [f"splits: {splits}{cut}", *to_adapt_to]

    def _class_line(self) -> str:
        totals: Counter[str] = Counter()
        for classes in self.counts.values():
            totals.update(classes)
        ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        if len(ordered) > MOST_CLASSES:
            first, last = ordered[: MOST_CLASSES // 2], ordered[-MOST_CLASSES // 2 :]
            return f"classes: {_listed(first)}, … ({len(ordered) - len(first) - len(last)} more), {_listed(last)}"
        return f"classes: {_listed(ordered)}"


def examine(config: DataConfig, *, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Look at every image of a data set, decode it, and say what is noticed; mistakes that training would stop for are findings.

    ``progress`` is told how many images of how many are done. Raises UserError where there is nothing to report on.
    """
    source = read_source(config)
    samples = source.every_sample
    tasks = [samples[start : start + IMAGES_PER_TASK] for start in range(0, len(samples), IMAGES_PER_TASK)]
    looks: list[Look] = []
    digests: list[bytes] = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for some in pool.map(partial(_look_at, settings=config.decoding), tasks):
            digests += [digest for digest, _ in some]
            looks += [look for _, look in some]
            if progress is not None:
                progress(len(looks), len(samples))
    assignment = assign(source, digests=digests, config=config)
    return make_report(source, assignment=assignment, looks=looks, config=config)


def make_report(source: Source, *, assignment: Assignment, looks: Iterable[Look], config: DataConfig) -> DataReport:
    """The report on a source whose images were assigned and decoded."""
    looks = _of_rows(looks, rows=assignment.rows) if assignment.rows else list(looks)
    bad = {look.name for look in looks if look.fault is not None}
    good = [row for row in assignment.rows if row.sample.name not in bad]
    num_samples = len(source.every_sample)
    left_out = dict(source.left_out)
    if assignment.rows and num_samples > len(assignment.rows):
        left_out[DROPPED] = num_samples - len(assignment.rows)
    num_bad = sum(row.sample.name in bad for row in assignment.rows) if assignment.rows else len(bad)
    lost = lost_to_bad_images(assignment.rows, bad=bad) if config.on_bad_image == "skip" else []
    targets = Counter(row.split for row in good if row.split in TARGET_SPLITS)
    if not assignment.rows:
        targets["target"] = sum(sample.name not in bad for sample in source.target)
    return DataReport(
        path=config.path or ", ".join([*config.source, config.target or ""]),
        format=data_format(config) if config.path or config.format == "elpv" else "folder",
        files=num_samples + sum(source.left_out.values()),
        used=len(good) if assignment.rows else num_samples - num_bad,
        bad=num_bad,
        left_out=left_out,
        counts=_counts(assignment.rows and good, source=source, classes=assignment.classes, bad=bad),
        cut=tuple(split for split in SPLITS[1:] if split not in source.given_splits),
        target={split: targets[split] for split in TARGET_SPLITS if targets[split]},
        known_in_test=_known_in_test(good),
        findings=(*assignment.findings, *_of_images(looks, config=config), *lost),
    )


def bad_images_error(looks: Sequence[Look], *, config: DataConfig) -> SettingsError:
    """What ends training where images are bad: the lines of the report on them."""
    findings = [finding for finding in _of_images(looks, config=config) if finding.is_mistake]
    return SettingsError([finding.line() for finding in findings])


def _look_at(samples: Sequence[Sample], *, settings: Mapping[str, Any]) -> list[tuple[bytes, Look]]:
    looks = []
    for sample in samples:
        data = read_or_empty(sample)
        digest = bytes(blake3(data).digest()) if data else NO_IMAGE
        try:
            looks.append((digest, Look(name=sample.name, remarks=load(data, **settings).remarks)))
        except BadImageError as error:
            looks.append((digest, Look(name=sample.name, remarks=(error.kind,), fault=str(error))))
    return looks


def _of_rows(looks: Iterable[Look], *, rows: Sequence[Row]) -> list[Look]:
    """The looks at images that are used, each as often as it is: what is wrong with others stops nothing."""
    left = Counter(row.sample.name for row in rows)
    of_rows = []
    for look in looks:
        if left[look.name]:
            left[look.name] -= 1
            of_rows.append(look)
    return of_rows


def _short(finding: Finding) -> Finding:
    """A finding without what the first line says of it: of files left out the examples."""
    return replace(finding, text="files left out") if finding.kind == "left_out" else finding


def _counts(
    rows: Sequence[Row], *, source: Source, classes: Sequence[str], bad: Collection[str]
) -> dict[str, dict[str, int]]:
    if not rows:
        totals = Counter(sample.label for sample in source.samples if sample.name not in bad)
        return {"all": {label: totals[label] for label in source.classes}}
    numbers = Counter((row.split, row.sample.label) for row in rows)
    return {split: {label: numbers[split, label] for label in classes} for split in SPLITS}


def _known_in_test(rows: Sequence[Row]) -> int:
    known = {row.sample_id for row in rows if row.split in ("train", "val")}
    return sum(row.split == "test" and row.sample_id in known for row in rows)


def _of_images(looks: Sequence[Look], *, config: DataConfig) -> list[Finding]:
    by_kind: dict[str, list[Look]] = defaultdict(list)
    for look in sorted(looks, key=lambda look: look.name.split("/")):
        for remark in look.remarks:
            by_kind[remark].append(look)
    return [_of_kind(kind, by_kind[kind], config=config) for kind in KINDS if kind in by_kind]


def _of_kind(kind: str, looks: Sequence[Look], *, config: DataConfig) -> Finding:
    entry, is_bad = KINDS[kind], kind in ("bad_image", "too_large")
    examples = tuple(repr(look.name) + (f" ({look.fault})" if look.fault else "") for look in looks)
    is_mistake = is_bad and config.on_bad_image == "error"
    done = "" if is_mistake else " (left out)" if is_bad else f" ({_done(kind, config=config)})"
    cures = {
        "bad_image": "`data.on_bad_image: skip` leaves them out",
        "too_large": "`data.max_pixels` allows more, `data.on_bad_image: skip` leaves them out",
        "twelve_bit": "`data.bit_depth: 12` makes them as bright as they are",
        "clipped": "`data.bit_depth` says how many bits are used",
    }
    cure = cures.get(kind, "") if is_mistake or not is_bad else ""
    return Finding(
        kind=kind,
        count=len(looks),
        text=f"{'data.path: ' if is_mistake else ''}{counted(len(looks), 'image')} {entry.noticed}{done}",
        examples=examples,
        cure=cure,
        is_mistake=is_mistake,
    )


def _done(kind: str, *, config: DataConfig) -> str:
    if kind == "hidden_colours" and config.background == "keep":
        return "seen by the network: data.background is keep"
    if kind == "transparent":
        return f"laid on {config.background}" if config.background != "keep" else "seen without it"
    return KINDS[kind].done


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{_plain(label)} {count}" for label, count in counts)


def _plain(label: str) -> str:
    """A label as it is, in quotes where blanks or line breaks in it would mislead."""
    return label if label.isprintable() and label == label.strip() != "" else repr(label)
