"""Finds the same image in several files: twice in a class, in two classes, splits, groups or domains."""

from collections import defaultdict
from collections.abc import Sequence

from trainable.data.fingerprint import NO_IMAGE
from trainable.data.kept_splits import GROUP
from trainable.data.readers.findings import Finding, counted
from trainable.data.readers.sample import Sample, Source
from trainable.errors import UserError

_FIRST_SPLITS = ("test", "val", None, "train")  # whose copy of an image is kept


def find_copies(samples: Sequence[Sample], digests: Sequence[bytes], *, policy: str) -> list[Finding]:
    """What is said of images that several samples are, by where they are; mistakes where the ``policy`` is `error`."""
    copies: dict[bytes, list[Sample]] = defaultdict(list)
    for sample, digest in zip(samples, digests, strict=True):
        copies[digest].append(sample)
    several = [same for digest, same in copies.items() if len(same) > 1 and digest != NO_IMAGE]
    in_splits = [same for same in several if len({sample.split for sample in same}) > 1]
    in_classes = [same for same in several if len({sample.label for sample in same}) > 1]
    in_class = [same for same in several if same not in in_splits and same not in in_classes] if several else []
    cure = "" if policy == "keep_first" else "`data.duplicates: keep_first` uses one of them"
    return [
        Finding(
            kind=kind,
            count=len(groups),
            text=f"{'data.duplicates: ' if policy == 'error' else ''}{counted(len(groups), 'image')} more than once {where}"
            + (", one is used" if policy == "keep_first" else ""),
            examples=tuple(_told(same, field=field) for same in groups),
            cure=cure,
            is_mistake=policy == "error",
        )
        for kind, groups, where, field in (
            ("in_two_splits", in_splits, "in different splits: what is measured on them was trained on", "split"),
            ("in_two_classes", in_classes, "in different classes", "label"),
            ("twice_in_class", in_class, "in one class", None),
        )
        if groups
    ]


def _told(same: Sequence[Sample], *, field: str | None) -> str:
    """Two of the samples that are one image, which differ in the field."""
    if field is None:
        return " and ".join(repr(sample.name) for sample in same[:2])
    other = next(sample for sample in same if getattr(sample, field) != getattr(same[0], field))
    return " and ".join(f"{sample.name!r} ({getattr(sample, field)})" for sample in (same[0], other))


def without_copies(samples: Sequence[Sample], digests: Sequence[bytes]) -> tuple[list[Sample], list[bytes]]:
    """One sample an image: of several splits the test's, of equals the first by name."""
    order = sorted(range(len(samples)), key=lambda row: (_FIRST_SPLITS.index(samples[row].split), samples[row].name))
    first: dict[bytes, int] = {}
    for row in order:
        first.setdefault(digests[row], row)
    rows = [row for row in range(len(samples)) if digests[row] == NO_IMAGE or first[digests[row]] == row]
    return [samples[row] for row in rows], [digests[row] for row in rows]


def find_classes_of_copies(classes: Sequence[str], samples: Sequence[Sample]) -> list[Finding]:
    """What is said of classes all of whose images are used in another one."""
    gone = sorted({*classes} - {sample.label for sample in samples})
    if not gone:
        return []
    number = counted(len(gone), "class", plural="classes")
    text = f"{number} of copies alone, whose images are used in other classes: {', '.join(map(repr, gone))}"
    return [Finding(kind="empty_class", count=len(gone), text=text)]


def find_united_groups(samples: Sequence[Sample], digests: Sequence[bytes]) -> list[Finding]:
    """What is said of given groups that share images with others."""
    named: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, united_groups(samples, digests), strict=True):
        if sample.group is not None:
            named[group].add(sample.group)
    united = [sorted(groups) for groups in named.values() if len(groups) > 1]
    if not united:
        return []
    text = f"{sum(map(len, united))} groups share images with others and count as {len(united)}"
    examples = tuple(" with ".join(map(repr, groups[:2])) for groups in united)
    return [Finding(kind="groups_united", count=len(united), text=text, examples=examples)]


def united_groups(samples: Sequence[Sample], digests: Sequence[bytes]) -> list[str]:
    """The group of every sample; groups that share an image are one, under the first of their names."""
    above: dict[str, str] = {}

    def root(group: str) -> str:
        while above.get(group, group) != group:
            above[group] = above.get(above[group], above[group])
            group = above[group]
        return group

    by_image: dict[bytes, str] = {}
    groups = [group_of(sample, digest) for sample, digest in zip(samples, digests, strict=True)]
    for group, digest in zip(groups, digests, strict=True):
        if digest == NO_IMAGE:
            continue
        low, high = sorted((root(group), root(by_image.setdefault(digest, group))))
        above[high] = low
    return [root(group) for group in groups]


def group_of(sample: Sample, digest: bytes) -> str:
    """The group a sample is of by itself: the given one, else that of its content."""
    return f"{GROUP}{sample.group}" if sample.group is not None else f"image {digest.hex()}"


def find_in_both_domains(source: Source, *, digests: Sequence[bytes]) -> list[Finding]:
    """What is said of the target's images that are the source's too, which are learnt with their labels; not all may be."""
    of_source = set(digests[: len(source.samples)]) - {NO_IMAGE}
    of_target = digests[len(source.samples) :]
    shared = [sample for sample, digest in zip(source.target, of_target, strict=True) if digest in of_source]
    if not shared:
        return []
    if len(shared) == len(of_target):
        raise UserError("data.target: every image of it is among those of data.source; name another domain")
    text = f"data.target: {counted(len(shared), 'image')} of it among those of data.source as well, where labels are learnt"
    examples = tuple(repr(sample.name) for sample in shared)
    return [
        Finding(kind="in_both_domains", count=len(shared), text=text, examples=examples, cure="leave them out of one")
    ]
