from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainable.data.splits import cut_splits
from trainable.errors import UserError

SHARES = {"test": 0.15, "val": 0.15}


def cut(labels, groups, *, splits=None, shares=SHARES, seed=0):
    return cut_splits(labels, groups=groups, given=splits or [None] * len(labels), shares=shares, seed=seed)


def sizes(splits, labels):
    return Counter(zip(labels, splits, strict=True))


def test_single_images_are_cut_to_the_exact_shares_of_each_class():
    labels = ["a"] * 100 + ["b"] * 20
    splits = cut(labels, [str(number) for number in range(120)])
    assert sizes(splits, labels) == {
        ("a", "train"): 70,
        ("a", "val"): 15,
        ("a", "test"): 15,
        ("b", "train"): 14,
        ("b", "val"): 3,
        ("b", "test"): 3,
    }


def test_a_class_of_three_groups_has_one_in_each_split():
    for seed in range(20):
        assert set(cut(["a"] * 7, list("xxxyyyz"), seed=seed)) == {"train", "val", "test"}


def test_a_giant_group_stays_in_train_wherever_it_stands_in_the_order():
    groups = ["giant"] * 100 + [str(number) for number in range(100)]
    for seed in range(20):
        splits = cut(["a"] * 200, groups, seed=seed)
        assert Counter(splits) == {"train": 140, "val": 30, "test": 30}
        assert splits[0] == "train"


def test_large_shares_leave_a_group_for_train():
    for seed in range(20):
        splits = cut(["a"] * 4, list("xyzz"), shares={"test": 0.49, "val": 0.49}, seed=seed)
        assert set(splits) == {"train", "val", "test"}


@pytest.mark.parametrize(("members", "owner"), [("aab", "a"), ("abb", "b"), ("aabb", "b")])
def test_a_mixed_group_goes_with_its_most_frequent_class_or_the_rarer_one(members, owner):
    labels = list(members) + ["a"] * 5 + ["b"] * 2
    groups = ["mixed"] * len(members) + list("1234567")
    if owner == "a":  # leaves b with the two groups of its own
        with pytest.raises(UserError, match="train, test and val need 3: 'b' has 2"):
            cut(labels, groups)
    else:
        splits = cut(labels, groups)
        assert len({splits[0], splits[-1], splits[-2]}) == 3
        assert len(set(splits[: len(members)])) == 1


def test_the_listing_order_makes_no_difference_while_the_seed_does():
    labels = [f"class {number // 30}" for number in range(90)]
    groups = [f"group {number // 2}" for number in range(90)]
    splits = cut(labels, groups)
    order = np.random.default_rng(0).permutation(90)
    shuffled = cut([labels[i] for i in order], [groups[i] for i in order])
    assert shuffled == [splits[i] for i in order]
    assert cut(labels, groups, seed=1) != splits


def test_the_cut_is_the_same_in_every_version_and_on_every_machine():
    splits = cut(["a"] * 10, list("abcdefghij"), shares={"test": 0.2, "val": 0.2})
    found = dict(zip("abcdefghij", splits, strict=True))  # blake2b orders the groups a j i e f g c b d h
    assert found == dict.fromkeys("abcdefghij", "train") | dict.fromkeys("aj", "test") | dict.fromkeys("ie", "val")


def test_given_val_and_test_stay_and_only_the_missing_split_is_cut_from_train():
    labels = ["a"] * 30 + ["b"] * 30
    given_splits = (["train"] * 20 + ["test"] * 10) * 2
    splits = cut(labels, [str(number) for number in range(60)], splits=given_splits, shares={"val": 0.1})
    assert [split == "test" for split in splits] == [split == "test" for split in given_splits]
    assert sizes(splits, labels)["a", "val"] == 2
    assert sizes(splits, labels)["b", "val"] == 2


def test_all_splits_given_stay_as_they_are():
    assert cut(["a", "a"], ["x", "x"], splits=["val", "test"], shares={}) == ["val", "test"]


def test_all_classes_of_too_few_groups_are_named_with_their_counts():
    labels, groups = ["a"] * 5 + ["b"] * 9 + ["c"], [*"12345", *"xxxxyyyyy", "z"]
    with pytest.raises(UserError) as caught:
        cut(labels, groups)
    assert str(caught.value) == (
        "data.path: too few different images or groups of a class's own, train, test and val need 3: 'b' has 2, 'c' has 1"
    )
    splits = cut_splits(labels, groups=groups, given=[None] * 15, shares=SHARES, seed=0, train_only={"b", "c"})
    assert set(splits[5:]) == {"train"}
    assert set(splits[:5]) == {"train", "val", "test"}


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 25)), min_size=10, max_size=80),
    st.floats(0.05, 0.45),
    st.integers(0, 5),
)
def test_no_group_straddles_and_every_class_with_three_groups_is_everywhere(images, share, seed):
    labels = [label for label, _ in images]
    groups = [f"{label}{number}" for label, number in images]
    if any(len({g for lab, g in zip(labels, groups, strict=True) if lab == label}) < 3 for label in set(labels)):
        return
    splits = cut(labels, groups, shares={"test": share, "val": share}, seed=seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert set(sizes(splits, labels)) == {(label, split) for label in set(labels) for split in ("train", "val", "test")}


@given(
    first=st.lists(st.sampled_from("ab"), min_size=20, max_size=60),
    later=st.lists(st.sampled_from("abc"), min_size=0, max_size=40),
    gone=st.sets(st.integers(0, 19)),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_known_groups_keep_their_split_whatever_comes_and_goes(first, later, gone, seed):
    first = [*"aaaabbbb", *first]
    later = [*later, *"ccc"] if "c" in later else later
    before = [f"old {index}" for index in range(len(first))]
    known = dict(zip(before, cut(first, before, seed=seed), strict=True))
    stay = [index for index in range(len(first)) if index not in gone or index < 8]
    labels = [first[index] for index in stay] + later
    groups = [before[index] for index in stay] + [f"new {index}" for index in range(len(later))]
    splits = cut_splits(labels, groups=groups, given=[None] * len(labels), shares=SHARES, seed=seed, known=known)
    assert splits[: len(stay)] == [known[before[index]] for index in stay]
    assert all(sizes(splits, labels)["c", split] for split in ("train", "val", "test")) or "c" not in labels


def test_new_groups_fill_every_class_up_to_its_shares():
    old = [f"old {index}" for index in range(100)]
    known = dict(zip(old, cut(["a"] * 100, old), strict=True))
    groups = old + [f"new {index}" for index in range(100)]
    splits = cut_splits(["a"] * 200, groups=groups, given=[None] * 200, shares=SHARES, seed=0, known=known)
    assert Counter(splits) == {"train": 140, "val": 30, "test": 30}
    assert Counter(splits[100:]) == {"train": 70, "val": 15, "test": 15}


def test_many_small_additions_end_with_the_same_shares():
    known, groups = {}, [f"old {index}" for index in range(20)]
    for day in range(40):
        groups = groups + [f"day {day} {index}" for index in range(3)]
        splits = cut_splits(
            ["a"] * len(groups), groups=groups, given=[None] * len(groups), shares=SHARES, seed=0, known=known
        )
        assert all(known[group] == split for group, split in zip(groups, splits, strict=True) if group in known)
        known = dict(zip(groups, splits, strict=True))
    assert Counter(known.values()) == {"train": 98, "val": 21, "test": 21}
