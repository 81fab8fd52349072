"""Cuts the splits that a data set does not bring itself."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from trainable.errors import UserError


def cut_splits(
    labels: Sequence[str],
    *,
    groups: Sequence[str],
    given: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
    known: Mapping[str, str] | None = None,
    train_only: Collection[str] = (),
) -> list[str]:
    """The split of every image: the given one where it is val or test, else a seeded, stratified cut of whole groups.

    ``shares`` holds what of a class goes to each split that is to be cut; the rest of it is train. A group belongs to
    the class of most of its images, of equals the rarer one. Inside a class the groups stand in the order of a hash of
    (seed, group); one after the other they are taken into a split while they bring it nearer to its share, the smallest
    one where none does, so that a class has at least one group everywhere. The order of the images makes no difference.

    Groups that are ``known`` from an earlier version of the images stay in the split they had, whatever came or went since;
    the others fill up what is missing to a class's shares. Of classes that are ``train_only`` all go to train.
    Raises UserError where other classes have fewer groups than there are splits.
    """
    if not shares:
        return [str(split) for split in given]
    open_images = [index for index, split in enumerate(given) if split in (None, "train")]
    by_class = groups_by_class([(labels[index], groups[index]) for index in open_images])
    chosen: dict[str, str] = {}
    cut = sorted({labels[index] for index in open_images} - set(train_only))
    few = [
        f"{label!r} has {len(by_class.get(label, {}))}" for label in cut if len(by_class.get(label, {})) <= len(shares)
    ]
    if few:
        needed = f"train, {' and '.join(shares)} need {len(shares) + 1}"
        raise UserError(f"data.path: too few different images or groups of a class's own, {needed}: {', '.join(few)}")
    for label in cut:
        sizes = by_class.get(label, {})
        chosen |= _cut_class(sizes, shares=shares, seed=seed, earlier=known or {})
    return [
        chosen.get(group, "train") if split in (None, "train") else str(split)
        for group, split in zip(groups, given, strict=True)
    ]


def cut_unlabelled(
    *,
    groups: Sequence[str],
    given: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
    known: Mapping[str, str] | None = None,
) -> list[str]:
    """:func:`cut_splits` without labels: as if all images were of one class."""
    return cut_splits([""] * len(groups), groups=groups, given=given, shares=shares, seed=seed, known=known)


def groups_by_class(images: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """For every class the groups that are its own, with their numbers of images."""
    totals = Counter(label for label, _ in images)
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in images:
        members[group][label] += 1
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for group, counts in members.items():
        majority = min(counts, key=lambda label: (-counts[label], totals[label], label))
        sizes[majority][group] = counts.total()
    return sizes


def _cut_class(
    sizes: Mapping[str, int], *, shares: Mapping[str, float], seed: int, earlier: Mapping[str, str]
) -> dict[str, str]:
    chosen = {group: earlier[group] for group in sizes if group in earlier}
    filled = Counter(dict.fromkeys((*shares, "train"), 0))
    for group, split in chosen.items():
        filled[split] += sizes[group]
    left = sorted((group for group in sizes if group not in chosen), key=lambda group: (_position(seed, group), group))
    for number, (split, share) in enumerate(shares.items()):
        missing = share * sum(sizes.values()) - filled[split]
        later = (*list(shares)[number + 1 :], "train")
        taken = _take(left, sizes=sizes, target=missing, must_leave=sum(not filled[name] for name in later))
        if not taken and not filled[split] and left:
            taken = [min(left, key=lambda group: sizes[group])]
        chosen |= dict.fromkeys(taken, split)
        left = [group for group in left if group not in chosen]
    return chosen


def _take(left: Sequence[str], *, sizes: Mapping[str, int], target: float, must_leave: int) -> list[str]:
    taken: list[str] = []
    filled = 0
    for group in left:
        if len(left) - len(taken) > must_leave and abs(filled + sizes[group] - target) < abs(filled - target):
            taken.append(group)
            filled += sizes[group]
    return taken


def _position(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}\x1f{group}".encode(), digest_size=16).digest()
