"""Decides which images of a data set are used, and as what."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainable.config.trial import DataConfig
from trainable.data.fingerprint import NO_IMAGE
from trainable.data.kept_splits import GROUP
from trainable.data.readers.findings import Finding, counted
from trainable.data.readers.sample import Sample, Source, plain_label
from trainable.data.splits import groups_by_class
from trainable.errors import UserError, nearest

OTHER = "other"  # the class that rare ones are merged into
IMBALANCED = 10  # times as many images
_FIRST_SPLITS = ("test", "val", None, "train")  # whose copy of an image is kept


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
    in_both = _in_both_domains(source, digests=digests)
    samples, of_samples = list(source.samples), list(digests[: len(source.samples)])
    of_target = list(digests[len(source.samples) :])
    findings = [*in_both, *_alike(source.classes), *_duplicates(samples, of_samples, policy=config.duplicates)]
    if config.duplicates == "keep_first":
        samples, of_samples = _without_copies(samples, of_samples)
        findings += _of_copies_alone(source.classes, samples)
    findings += _united(samples, of_samples, config=config)
    kept, train_only, of_classes = _without_rare(samples, of_samples, config=config)
    samples = [sample for sample in kept if sample is not None]
    of_samples = [digest for sample, digest in zip(kept, of_samples, strict=True) if sample is not None]
    if (
        config.rare != "error" and config.duplicates != "keep_first"
    ):  # images went, or to train, while copies are held out
        in_splits = [
            found for found in _duplicates(samples, of_samples, policy=config.duplicates) if _is_of_splits(found)
        ]
        findings = [*in_splits, *(found for found in findings if not _is_of_splits(found))]
    classes = tuple(sorted({sample.label or "" for sample in samples}))
    if len(classes) < 2 <= len(source.classes):
        few = "" if config.min_images == 1 else f"; data.min_images is {config.min_images}"
        raise UserError(f"data.rare: {config.rare} leaves fewer than two classes ({', '.join(classes) or 'none'}){few}")
    if train_only.issuperset(classes):
        raise UserError("data.rare: train_only leaves no class to validate and test, since all are rare")
    used = replace(source, samples=tuple(samples), classes=classes)
    findings += [*of_classes, *_missing(used), *_imbalance(used)]
    groups = united_groups([*samples, *source.target], [*of_samples, *of_target])
    return Selection(
        source=used,
        digests=[*of_samples, *of_target],
        groups=groups,
        train_only=train_only,
        findings=(*source.findings, *findings),
    )


def _in_both_domains(source: Source, *, digests: Sequence[bytes]) -> list[Finding]:
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


def missing_shares(samples: Iterable[Sample], *, config: DataConfig) -> dict[str, float]:
    """Shares of the splits that the samples do not bring themselves."""
    given = {sample.split for sample in samples}
    shares = {"test": config.test_share, "val": config.val_share}
    return {split: share for split, share in shares.items() if split not in given}


def group_of(sample: Sample, digest: bytes) -> str:
    """The group a sample is of by itself: the given one, else that of its content."""
    return f"{GROUP}{sample.group}" if sample.group is not None else f"image {digest.hex()}"


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


def _alike(classes: Sequence[str]) -> list[Finding]:
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_plain[plain_label(name)].append(name)
    alike = [names for names in by_plain.values() if len(names) > 1]
    if not alike:
        return []
    examples = tuple(" and ".join(map(ascii_if_alike, names)) for names in alike)
    text = f"{sum(map(len, alike))} classes have names that look alike"
    return [
        Finding(
            kind="alike_labels",
            count=len(alike),
            text=text,
            examples=examples,
            cure="`data.labels: normalised` makes them one",
        )
    ]


def ascii_if_alike(name: str) -> str:
    """The name in quotes, so that blanks show; its Unicode form too where letters are composed of several."""
    return ascii(name) if any(ord(letter) > 127 for letter in name) else repr(name)


def _duplicates(samples: Sequence[Sample], digests: Sequence[bytes], *, policy: str) -> list[Finding]:
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


def _is_of_splits(finding: Finding) -> bool:
    return finding.kind == "in_two_splits"


def _told(same: Sequence[Sample], *, field: str | None) -> str:
    """Two of the samples that are one image, which differ in the field."""
    if field is None:
        return " and ".join(repr(sample.name) for sample in same[:2])
    other = next(sample for sample in same if getattr(sample, field) != getattr(same[0], field))
    return " and ".join(f"{sample.name!r} ({getattr(sample, field)})" for sample in (same[0], other))


def _without_copies(samples: Sequence[Sample], digests: Sequence[bytes]) -> tuple[list[Sample], list[bytes]]:
    """One sample an image: of several splits the test's, of equals the first by name."""
    order = sorted(range(len(samples)), key=lambda row: (_FIRST_SPLITS.index(samples[row].split), samples[row].name))
    first: dict[bytes, int] = {}
    for row in order:
        first.setdefault(digests[row], row)
    rows = [row for row in range(len(samples)) if digests[row] == NO_IMAGE or first[digests[row]] == row]
    return [samples[row] for row in rows], [digests[row] for row in rows]


def _of_copies_alone(classes: Sequence[str], samples: Sequence[Sample]) -> list[Finding]:
    """What is said of classes all of whose images are used in another one."""
    gone = sorted({*classes} - {sample.label for sample in samples})
    if not gone:
        return []
    number = counted(len(gone), "class", plural="classes")
    text = f"{number} of copies alone, whose images are used in other classes: {', '.join(map(repr, gone))}"
    return [Finding(kind="empty_class", count=len(gone), text=text)]


def _united(samples: Sequence[Sample], digests: Sequence[bytes], *, config: DataConfig) -> list[Finding]:
    if config.group_column is None:
        return []
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


def _without_rare(
    samples: Sequence[Sample], digests: Sequence[bytes], *, config: DataConfig
) -> tuple[list[Sample | None], frozenset[str], list[Finding]]:
    """The samples without or with other labels of rare classes, None where one is left out; what was done with which."""
    kept: list[Sample | None] = list(samples)
    reasons = _rare_classes(samples, digests, config=config)
    if not reasons:
        return kept, frozenset(), []
    findings = _rare_findings(reasons, samples=samples, config=config)
    train_only: frozenset[str] = frozenset()
    for row, sample in enumerate(samples):
        if (sample.label or "") not in reasons:
            continue
        if config.rare == "drop":
            kept[row] = None
        elif config.rare == "merge":
            kept[row] = replace(sample, label=OTHER)
        elif config.rare == "train_only":
            kept[row] = replace(sample, split=None if sample.split is None else "train")
            train_only = frozenset(reasons)
    if config.rare == "merge":
        left = [(sample, digest) for sample, digest in zip(kept, digests, strict=True) if sample is not None]
        still = _rare_classes([sample for sample, _ in left], [digest for _, digest in left], config=config)
        findings += _rare_findings(still, samples=[sample for sample, _ in left], config=config, is_merged=True)
    return kept, train_only, findings


def _rare_classes(
    samples: Sequence[Sample], digests: Sequence[bytes], *, config: DataConfig
) -> dict[str, tuple[str, str]]:
    """By class that is rare the kind of finding and why, in words."""
    shares = missing_shares(samples, config=config)
    numbers = Counter(sample.label or "" for sample in samples)
    groups = united_groups(samples, digests)
    is_open = [sample.split in (None, "train") for sample in samples]
    own = groups_by_class(
        [(sample.label or "", group) for sample, group, to_cut in zip(samples, groups, is_open, strict=True) if to_cut]
    )
    trained = {sample.label or "" for sample, to_cut in zip(samples, is_open, strict=True) if to_cut}
    reasons: dict[str, tuple[str, str]] = {}
    for label, number in sorted(numbers.items()):
        num_groups = len(own.get(label, {}))
        if label not in trained:
            reasons[label] = "untrained", counted(number, "image") + nearest(label, trained)
        elif number < config.min_images:
            reasons[label] = "rare", f"{number} images"
        elif shares and num_groups <= len(shares):
            kind = "one_group" if num_groups <= 1 < number and config.group_column else "rare"
            different = (
                "" if num_groups == number or kind == "one_group" else f", {num_groups} different ones or groups"
            )
            reasons[label] = kind, counted(number, "image") + different
    return reasons


def _rare_findings(
    reasons: Mapping[str, tuple[str, str]], *, samples: Sequence[Sample], config: DataConfig, is_merged: bool = False
) -> list[Finding]:
    """One finding for every kind, with all its classes."""
    done = {
        "error": "",
        "drop": ", left out",
        "merge": f", merged into {OTHER!r}",
        "train_only": ", trained on and neither validated nor tested",
    }[config.rare]
    is_mistake = is_merged or config.rare == "error"
    needed = len(missing_shares(samples, config=config)) + 1
    texts = {
        "rare": f"with too few images, at least {max(needed, config.min_images)} different ones or groups are needed",
        "one_group": f"with all images in one group of data.group_column {config.group_column!r}, {needed} are needed",
        "untrained": "in val or test and not in train",
    }
    cure = "`data.rare: drop`, `merge` or `train_only` goes on without more images"
    findings = []
    for kind, text in texts.items():
        names = {label: why for label, (of_kind, why) in reasons.items() if of_kind == kind}
        if names:
            listed = ", ".join(f"{label!r} ({why})" for label, why in names.items())
            field = "data.rare: " if is_merged else "data.path: " if is_mistake else ""
            findings.append(
                Finding(
                    kind=kind,
                    count=len(names),
                    text=f"{field}{counted(len(names), 'class', plural='classes')} {text}: {listed}{'' if is_mistake else done}",
                    cure="`data.rare: drop` or `train_only` goes on" if is_merged else cure if is_mistake else "",
                    is_mistake=is_mistake,
                )
            )
    return findings


def _missing(source: Source) -> list[Finding]:
    counts = source.counts()
    findings = []
    for split in source.given_splits[1:]:
        absent = [label for label in source.classes if not counts[split][label]]
        if absent:
            number = counted(len(absent), "class", plural="classes")
            text = f"{number} without an image in {split}, not judged there: {', '.join(map(repr, absent))}"
            findings.append(Finding(kind="missing_in_split", count=len(absent), text=text))
    return findings


def _imbalance(source: Source) -> list[Finding]:
    numbers = Counter(sample.label or "" for sample in source.samples)
    (most, many), (least, few) = numbers.most_common()[0], min(numbers.items(), key=lambda item: (item[1], item[0]))
    if many < IMBALANCED * few:
        return []
    text = f"the largest class {most!r} has {many} images, the smallest {least!r} {few}, {many / few:.0f} times fewer"
    cure = "judge by balanced accuracy; `data.class_sampling` and `loss.class_weights` can be varied"
    return [Finding(kind="imbalance", count=1, text=text, cure=cure)]
