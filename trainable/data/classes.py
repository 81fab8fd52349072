"""Judges the classes of a data set: names that look alike, too few images, splits without one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from trainable.config.trial import DataConfig
from trainable.data.copies import united_groups
from trainable.data.readers.findings import Finding, counted
from trainable.data.readers.sample import Sample, Source, plain_label
from trainable.data.splits import groups_by_class
from trainable.errors import nearest

OTHER = "other"  # the class that rare ones are merged into
IMBALANCED = 10  # times as many images


def find_alike(classes: Sequence[str]) -> list[Finding]:
    """What is said of names of classes that look alike."""
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_plain[plain_label(name)].append(name)
    alike = [names for names in by_plain.values() if len(names) > 1]
    if not alike:
        return []
    examples = tuple(" and ".join(map(_shown, names)) for names in alike)
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


def _shown(name: str) -> str:
    """The name in quotes, so that blanks show; its Unicode form too where letters are composed of several."""
    return ascii(name) if any(ord(letter) > 127 for letter in name) else repr(name)


def without_rare(
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


def missing_shares(samples: Iterable[Sample], *, config: DataConfig) -> dict[str, float]:
    """Shares of the splits that the samples do not bring themselves."""
    given = {sample.split for sample in samples}
    shares = {"test": config.test_share, "val": config.val_share}
    return {split: share for split, share in shares.items() if split not in given}


def find_missing(source: Source) -> list[Finding]:
    """What is said of classes that a given val or test lacks."""
    counts = source.counts()
    findings = []
    for split in source.given_splits[1:]:
        absent = [label for label in source.classes if not counts[split][label]]
        if absent:
            number = counted(len(absent), "class", plural="classes")
            text = f"{number} without an image in {split}, not judged there: {', '.join(map(repr, absent))}"
            cure = f"give {split} some of their images to have them judged"
            findings.append(Finding(kind="missing_in_split", count=len(absent), text=text, cure=cure))
    return findings


def find_imbalance(source: Source) -> list[Finding]:
    """What is said of a class beside which another one is rare."""
    numbers = Counter(sample.label or "" for sample in source.samples)
    (most, many), (least, few) = numbers.most_common()[0], min(numbers.items(), key=lambda item: (item[1], item[0]))
    if many < IMBALANCED * few:
        return []
    text = f"the largest class {most!r} has {many} images, the smallest {least!r} {few}, {many / few:.0f} times fewer"
    cure = "judge by balanced accuracy; `data.class_sampling` and `loss.class_weights` can be varied"
    return [Finding(kind="imbalance", count=1, text=text, cure=cure)]
