"""Assigns the images of a data set that are used to their splits."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainable.config.trial import DataConfig
from trainable.data.classes import missing_shares
from trainable.data.copies import group_of
from trainable.data.fingerprint import id_of
from trainable.data.kept_splits import known_splits, strongest_split
from trainable.data.readers.findings import Finding, only_mistakes
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS, Sample, Source
from trainable.data.selection import Selection, select
from trainable.data.splits import cut_splits, cut_unlabelled
from trainable.errors import SettingsError

MIN_TARGET_IMAGES = 2  # in each split of a domain to adapt to: of one no statistic has a spread


@dataclass(frozen=True)
class Row:
    """An image of the pack before it is decoded."""

    sample: Sample
    sample_id: int
    split: str


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All images that are used in canonical order, none where a mistake is among the ``findings``."""

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]

    def check(self) -> None:
        """Raise a SettingsError with a line for each of the findings that stop training."""
        mistakes = only_mistakes(self.findings)
        if mistakes:
            raise SettingsError([mistake.line() for mistake in mistakes])


def assign(source: Source, *, digests: Sequence[bytes], config: DataConfig) -> Assignment:
    """The images that :func:`select` leaves, each in its split; groups that share an image are split as one.

    ``digests`` are those of the source's samples, labelled ones first. Raises UserError where fewer than two classes are left.
    """
    selection = select(source, digests=digests, config=config)
    findings = list(selection.findings)
    rows: list[Row] = []
    if not only_mistakes(findings):
        rows = _labelled(selection, config=config)
        target = _of_target(selection, config=config)
        findings += _few_target(target, selection=selection, config=config)
        rows = sorted([*rows, *target], key=lambda row: (row.sample_id, row.sample.name))
    rows = [] if only_mistakes(findings) else rows
    return Assignment(rows=tuple(rows), classes=selection.source.classes, findings=tuple(findings))


def assigned_rows(source: Source, *, digests: Sequence[bytes], config: DataConfig) -> list[Row]:
    """The rows of :func:`assign`; what stops training is a SettingsError."""
    assignment = assign(source, digests=digests, config=config)
    assignment.check()
    return list(assignment.rows)


def _labelled(selection: Selection, *, config: DataConfig) -> list[Row]:
    samples = selection.source.samples
    digests, groups = selection.digests[: len(samples)], selection.groups[: len(samples)]
    splits = cut_splits(
        [sample.label or "" for sample in samples],
        groups=groups,
        given=[sample.split for sample in samples],
        shares=missing_shares(samples, config=config),
        seed=config.split_seed,
        known=_known(samples, digests=digests, groups=groups, names=SPLITS, config=config),
        train_only=selection.train_only,
    )
    return _rows(samples, digests=digests, splits=splits)


def _of_target(selection: Selection, *, config: DataConfig) -> list[Row]:
    samples = selection.source.target
    if not samples:
        return []
    first = len(selection.source.samples)
    digests, groups = selection.digests[first:], selection.groups[first:]
    shares = missing_shares(samples, config=config)
    if len(set(groups)) <= len(shares):  # none can be held out
        return _rows(samples, digests=digests, splits=["target"] * len(samples))
    cut = cut_unlabelled(
        groups=groups,
        given=[sample.split for sample in samples],
        shares=shares,
        seed=config.split_seed,
        known=_known(samples, digests=digests, groups=groups, names=TARGET_SPLITS, config=config),
    )
    return _rows(samples, digests=digests, splits=[TARGET_SPLITS[SPLITS.index(split)] for split in cut])


def _rows(samples: Sequence[Sample], *, digests: Sequence[bytes], splits: Sequence[str]) -> list[Row]:
    return [Row(sample, id_of(digest), split) for sample, digest, split in zip(samples, digests, splits, strict=True)]


def _known(
    samples: Sequence[Sample],
    *,
    digests: Sequence[bytes],
    groups: Sequence[str],
    names: Sequence[str],
    config: DataConfig,
) -> dict[str, str]:
    """The earlier splits of the groups; of groups that are united since, the one that leaves held-out images held out."""
    by_themselves = [group_of(sample, digest) for sample, digest in zip(samples, digests, strict=True)]
    ids = [id_of(digest) for digest in digests]
    earlier = known_splits(config.keep_splits, groups=by_themselves, sample_ids=ids, names=names)
    known: dict[str, str] = {}
    for group, by_itself in zip(groups, by_themselves, strict=True):
        if by_itself in earlier:
            known[group] = strongest_split([earlier[by_itself], known.get(group, "train")])
    return known


def _few_target(rows: Sequence[Row], *, selection: Selection, config: DataConfig) -> list[Finding]:
    if not rows:
        return []
    counts = Counter(row.split for row in rows)
    few = [split for split in TARGET_SPLITS if counts[split] < MIN_TARGET_IMAGES]
    if not few:
        return []
    smallest = min([*missing_shares(selection.source.target, config=config).values(), 0.5])
    needed = math.ceil(MIN_TARGET_IMAGES / smallest)
    there = f"{len(rows)} images to adapt to leave {counts[few[0]]} for its {few[0]} split"
    text = f"data.target: {there}, which needs {MIN_TARGET_IMAGES}"
    cure = f"with {needed} images there are, or with larger shares data.val_share and data.test_share"
    return [Finding(kind="few_target", count=len(rows), text=text, cure=cure, is_mistake=True)]


def lost_to_bad_images(rows: Sequence[Row], *, bad: Collection[str]) -> list[Finding]:
    """What no image is left of once those called ``bad`` are left out: a class in a split, a split to adapt by."""
    good = [row for row in rows if row.sample.name not in bad]
    planned = {(row.split, row.sample.label) for row in rows if row.split in SPLITS}
    lost = sorted(planned - {(row.split, row.sample.label) for row in good}, key=str)
    texts = [f"class {label!r} has no image in {split} that can be used" for split, label in lost]
    counts = Counter(row.split for row in good)
    if any(row.split in TARGET_SPLITS for row in rows):
        texts += [
            f"the {split} split has {counts[split]} images that can be used, {MIN_TARGET_IMAGES} are needed"
            for split in TARGET_SPLITS
            if counts[split] < MIN_TARGET_IMAGES
        ]
    if not texts:
        return []
    cure = "take the bad images out of the data, so that the splits are cut without them"
    return [Finding(kind="lost", count=len(texts), text=f"data.path: {', '.join(texts)}", cure=cure, is_mistake=True)]
