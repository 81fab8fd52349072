import pytest

from trainable.config.trial import DataConfig
from trainable.data.copies import united_groups
from trainable.data.readers.sample import SPLITS, Found, Sample, make_source
from trainable.data.selection import select
from trainable.errors import UserError


def sample(name, *, label="cat", split=None, group=None):
    return Sample(name=name, label=label, split=split, group=group, domain=None, file=name, read_bytes=bytes)


def source_of(samples):
    return make_source(Found(samples, [sample.file for sample in samples]))


def digests_of(contents):
    return [content.encode().ljust(32, b"_") for content in contents]


def chosen(samples, contents=None, **fields):
    contents = contents or [sample.name for sample in samples]
    return select(source_of(samples), digests=digests_of(contents), config=DataConfig(path="x", **fields))


def kinds(selection):
    return [finding.kind for finding in selection.findings]


def labels(selection):
    return sorted({sample.label for sample in selection.source.samples})


MANY = [sample(f"cat{i}") for i in range(6)] + [sample(f"dog{i}", label="dog") for i in range(6)]


def test_nothing_is_said_of_images_that_need_no_words():
    selection = chosen(MANY)
    assert selection.findings == ()
    assert selection.source.samples == tuple(MANY)


@pytest.mark.parametrize(
    ("copy", "kind", "line"),
    [
        (sample("again"), "twice_in_class", "1 image more than once in one class, such as 'cat0' and 'again'"),
        (
            sample("again", label="dog"),
            "in_two_classes",
            "1 image more than once in different classes, such as 'cat0' (cat) and 'again' (dog)",
        ),
    ],
)
def test_the_same_image_twice_is_counted_and_named_and_one_is_used_where_that_is_asked(copy, kind, line):
    samples, contents = [*MANY, copy], [*(sample.name for sample in MANY), "cat0"]
    selection = chosen(samples, contents)
    assert kinds(selection) == [kind]
    assert selection.findings[0].line() == f"{line}; `data.duplicates: keep_first` uses one of them"
    assert len(selection.source.samples) == 13
    kept = chosen(samples, contents, duplicates="keep_first")
    assert [sample.name for sample in kept.source.samples] == [*(sample.name for sample in MANY[1:]), "again"]
    assert chosen(samples, contents, duplicates="error").findings[0].is_mistake


def test_of_an_image_in_several_splits_the_tests_copy_is_kept():
    splits = {"train": 4, "val": 2, "test": 2}
    samples = [
        sample(f"{split}{label}{i}", label=label, split=split)
        for split, number in splits.items()
        for label in ("cat", "dog")
        for i in range(number)
    ]
    names = [sample.name for sample in samples]
    contents = ["same" if name in ("traincat0", "valcat0", "testcat0") else name for name in names]
    contents = [
        "also" if name in ("traindog0", "valdog0") else content for name, content in zip(names, contents, strict=True)
    ]
    assert kinds(chosen(samples, contents)) == ["in_two_splits"]
    kept = {sample.name for sample in chosen(samples, contents, duplicates="keep_first").source.samples}
    assert set(names) - kept == {"traincat0", "valcat0", "traindog0"}


def test_of_several_copies_two_that_differ_are_named():
    samples = [*MANY, sample("a", label="cat"), sample("b", label="cat"), sample("c", label="dog")]
    contents = [*(sample.name for sample in MANY), "x", "x", "x"]
    assert "such as 'a' (cat) and 'c' (dog)" in chosen(samples, contents).findings[0].line()
    (line,) = [finding.line() for finding in chosen(samples, contents, duplicates="error").findings]
    assert line.startswith("data.duplicates: 1 image more than once in different classes")


def test_a_class_all_of_whose_images_are_used_in_others_is_said():
    samples, contents = [*MANY, sample("owl", label="owl")], [*(sample.name for sample in MANY), "cat0"]
    selection = chosen(samples, contents, duplicates="keep_first")
    assert labels(selection) == ["cat", "dog"]
    assert selection.findings[-1].line() == "1 class of copies alone, whose images are used in other classes: 'owl'"


def test_images_that_cannot_be_read_are_no_copies_of_each_other():
    from trainable.data.fingerprint import NO_IMAGE

    digests = [NO_IMAGE, NO_IMAGE, *digests_of([sample.name for sample in MANY[2:]])]
    selection = select(source_of(MANY), digests=digests, config=DataConfig(path="x", duplicates="keep_first"))
    assert len(selection.source.samples) == 12
    assert selection.findings == ()


def test_groups_that_share_an_image_are_one_through_any_number_of_steps():
    samples = [sample(str(i), group=group) for i, group in enumerate(["a", "b", "b", "c", "d", None, None])]
    groups = united_groups(samples, digests_of(["1", "1", "2", "2", "3", "4", "2"]))
    assert len({*groups[:4], groups[6]}) == 1
    assert len(set(groups)) == 3
    selection = chosen(
        [*MANY, sample("x", group="p"), sample("y", group="q")],
        [*(sample.name for sample in MANY), "z", "z"],
        group_column="patient",
    )
    assert kinds(selection) == ["twice_in_class", "groups_united"]
    assert selection.findings[1].line() == "2 groups share images with others and count as 1, such as 'p' with 'q'"


def test_all_classes_that_are_too_small_are_one_mistake_with_a_way_on():
    samples = [*MANY, sample("owl0", label="owl"), sample("yak0", label="yak"), sample("yak1", label="yak")]
    (mistake,) = chosen(samples).findings
    assert mistake.is_mistake
    assert mistake.line() == (
        "data.path: 2 classes with too few images, at least 3 different ones or groups are needed: 'owl' (1 image), "
        "'yak' (2 images); `data.rare: drop`, `merge` or `train_only` goes on without more images"
    )
    dropped = chosen(samples, rare="drop")
    assert (labels(dropped), len(dropped.source.samples), len(dropped.digests)) == (["cat", "dog"], 12, 12)
    merged = chosen(samples, rare="merge")
    assert labels(merged) == ["cat", "dog", "other"]
    only = chosen(samples, rare="train_only")
    assert (labels(only), only.train_only) == (["cat", "dog", "owl", "yak"], {"owl", "yak"})
    for selection in (dropped, merged, only):
        assert not any(finding.is_mistake for finding in selection.findings)
        assert "'owl' (1 image), 'yak' (2 images)" in selection.findings[0].line()


def test_what_is_merged_may_still_be_too_few():
    selection = chosen([*MANY, sample("owl0", label="owl")], rare="merge")
    assert selection.findings[-1].is_mistake
    assert "'other' (1 image)" in selection.findings[-1].line()


def test_some_classes_must_be_left_to_train_and_to_judge_by():
    for rare, left in (("drop", "none"), ("merge", "other")):
        with pytest.raises(
            UserError, match=rf"^data.rare: {rare} leaves fewer than two classes \({left}\); data.min_images is 9$"
        ):
            chosen(MANY, rare=rare, min_images=9)
    with pytest.raises(
        UserError, match=r"^data.rare: train_only leaves no class to validate and test, since all are rare$"
    ):
        chosen(MANY, rare="train_only", min_images=9)


def test_how_many_images_are_few_can_be_said():
    samples = [*MANY, *(sample(f"owl{i}", label="owl") for i in range(4))]
    assert chosen(samples).findings == ()
    assert "at least 5 " in chosen(samples, min_images=5).findings[0].line()
    with pytest.raises(
        UserError, match=r"^data.rare: drop leaves fewer than two classes \(none\); data.min_images is 7$"
    ):
        chosen(samples, min_images=7, rare="drop")


def test_a_class_of_one_patient_names_the_column():
    samples = [
        sample(f"{label}{i}", label=label, group=f"{label}{i if label == 'cat' else 0}")
        for label in ("cat", "dog")
        for i in range(5)
    ]
    (mistake,) = chosen(samples, group_column="patient").findings
    assert mistake.kind == "one_group"
    assert (
        "1 class with all images in one group of data.group_column 'patient', 3 are needed: 'dog' (5 images)"
        in mistake.line()
    )


def test_a_class_that_a_given_split_lacks_is_said_and_one_that_is_never_trained_is_a_mistake():
    samples = [
        *(
            sample(f"{split}{label}", label=label, split=split)
            for split in ("train", "val", "test")
            for label in ("cat", "dog")
        ),
        sample("owl", label="owl", split="train"),
        sample("dgo", label="dgo", split="val"),
    ]
    selection = chosen(samples)
    assert kinds(selection) == ["untrained", "missing_in_split", "missing_in_split"]
    assert selection.findings[0].is_mistake
    assert "'dgo' (1 image; did you mean 'dog'?)" in selection.findings[0].line()
    assert selection.findings[1].line() == (
        "1 class without an image in val, not judged there: 'owl'; give val some of their images to have them judged"
    )
    assert not selection.findings[1].is_mistake
    moved = chosen(samples, rare="train_only").source.samples
    assert [sample.split for sample in moved if sample.label == "dgo"] == ["train"]


def test_a_class_moved_to_train_whose_copies_are_held_out_is_said_and_one_left_out_is_not():
    given = [
        sample(f"{kind}{i}", label=kind, split=split) for kind in ("cat", "dog") for i, split in enumerate(SPLITS * 3)
    ]
    samples, contents = [*given, sample("owl", label="owl", split="test")], [*(sample.name for sample in given), "cat2"]
    assert given[2].split == "test"
    selection = chosen(samples, contents, rare="train_only")
    (line,) = [finding.line() for finding in selection.findings if finding.kind == "in_two_splits"]
    assert "such as 'cat2' (test) and 'owl' (train)" in line
    kept = chosen(samples, contents, rare="train_only", duplicates="keep_first")
    assert "owl" not in labels(kept)
    samples[-1] = sample("owl", label="owl", split="val")  # whose copy is in another split only until it is left out
    assert "in_two_splits" in kinds(chosen(samples, contents))
    assert "in_two_splits" not in kinds(chosen(samples, contents, rare="drop"))


def test_labels_that_look_alike_are_said():
    names = ["Cat", "cat", "cat ", "1", "1.0", "Ka\u0308fer", "K\xe4fer", "dog"]
    (finding,) = chosen([sample(f"{name}{i}", label=name) for name in names for i in range(4)]).findings
    assert finding.line() == (
        "7 classes have names that look alike, such as '1' and '1.0', 'Cat' and 'cat' and 'cat ', "
        "'Ka\\u0308fer' and 'K\\xe4fer'; `data.labels: normalised` makes them one"
    )


def test_a_rare_class_beside_a_large_one_is_said():
    samples = [*(sample(f"cat{i}") for i in range(60)), *(sample(f"dog{i}", label="dog") for i in range(6))]
    (finding,) = chosen(samples).findings
    assert finding.text == "the largest class 'cat' has 60 images, the smallest 'dog' 6, 10 times fewer"
    assert chosen(samples[:59] + samples[60:]).findings == ()
