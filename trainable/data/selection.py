"""Decides which images of a data set are used, and as what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainable.config.trial import DataConfig
from trainable.data.classes import find_alike, find_imbalance, find_missing, without_rare
from trainable.data.copies import (
    find_classes_of_copies,
    find_copies,
    find_in_both_domains,
    find_united_groups,
    united_groups,
    without_copies,
)
from trainable.data.readers.findings import Finding
from trainable.data.readers.sample import Source
from trainable.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is used of a ``source``, with the digest of each of its samples and the group it is split by.

    ``train_only`` are classes of which no image is held out; ``findings`` are what was noticed and done.
    """

    source: Source
    digests: list[bytes]
    groups: list[str]
    train_only: frozenset[str]
    findings: tuple[Finding, ...]


def select(source: Source, *, digests: Sequence[bytes], config: DataConfig) -> Selection:
    """The images of a source that are used, by ``data.duplicates``, ``data.min_images`` and ``data.rare``.

    ``digests`` are those of its samples, labelled ones first. Raises UserError where fewer than two classes are
    left, where none is to be validated, and where all images of the target are among the others.
    """
    of_names = [*find_in_both_domains(source, digests=digests), *find_alike(source.classes)]
    of_groups: list[Finding] = []
    num_labelled = len(source.samples)
    samples, of_samples, of_target = list(source.samples), list(digests[:num_labelled]), list(digests[num_labelled:])
    copies = find_copies(samples, of_samples, policy=config.duplicates)
    if config.duplicates == "keep_first":
        samples, of_samples = without_copies(samples, of_samples)
        of_groups += find_classes_of_copies(source.classes, samples)
    if config.group_column is not None:
        of_groups += find_united_groups(samples, of_samples)
    kept, train_only, of_classes = without_rare(samples, of_samples, config=config)
    samples = [sample for sample in kept if sample is not None]
    of_samples = [digest for sample, digest in zip(kept, of_samples, strict=True) if sample is not None]
    if config.rare != "error" and config.duplicates != "keep_first":  # some went, or to train while copies are held out
        copies = _with_splits_as_they_are(copies, now=find_copies(samples, of_samples, policy=config.duplicates))
    used = replace(source, samples=tuple(samples), classes=tuple(sorted({sample.label or "" for sample in samples})))
    _check_classes(used, before=source, train_only=train_only, config=config)
    findings = [*of_names, *copies, *of_groups, *of_classes, *find_missing(used), *find_imbalance(used)]
    return Selection(
        source=used,
        digests=[*of_samples, *of_target],
        groups=united_groups([*samples, *source.target], [*of_samples, *of_target]),
        train_only=train_only,
        findings=(*source.findings, *findings),
    )


def _with_splits_as_they_are(before: Sequence[Finding], *, now: Sequence[Finding]) -> list[Finding]:
    """What was said of copies, but of those in several splits what is so now that rare classes are dealt with."""
    of_splits = [finding for finding in now if finding.kind == "in_two_splits"]
    return [*of_splits, *(finding for finding in before if finding.kind != "in_two_splits")]


def _check_classes(used: Source, *, before: Source, train_only: frozenset[str], config: DataConfig) -> None:
    """Raise UserError where what is used has fewer than two classes, or none to be validated."""
    if len(used.classes) < 2 <= len(before.classes):
        few = "" if config.min_images == 1 else f"; data.min_images is {config.min_images}"
        left = ", ".join(used.classes) or "none"
        raise UserError(f"data.rare: {config.rare} leaves fewer than two classes ({left}){few}")
    if train_only.issuperset(used.classes):
        raise UserError("data.rare: train_only leaves no class to validate and test, since all are rare")
