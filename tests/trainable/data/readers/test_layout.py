import shutil

import pytest

from trainable.config.trial import DataConfig
from trainable.data.readers.read import read_source
from trainable.errors import UserError


def read(root, **fields):
    source = read_source(DataConfig(path=str(root), **fields))
    return sorted({(sample.split, sample.label) for sample in source.samples}, key=str), source


BOTH = sorted([(split, label) for split in ("train", "test") for label in ("cat", "dog")], key=str)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "Test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_images", "test_images"),
        ("train/train", "test"),
        ("data/train", "data/test"),
    ],
)
def test_folders_are_splits_by_their_names_and_it_is_said(draw_folder, train, test):
    splits, source = read(draw_folder({f"{split}/{label}": 2 for split in (train, test) for label in ("cat", "dog")}))
    assert splits == BOTH
    assert len(source.samples) == 8
    assert [finding.kind for finding in source.findings] == ["layout"] * len(source.findings)


def test_splits_may_lie_in_the_folders_of_classes(draw_folder):
    root = draw_folder({f"{label}/{split}": 2 for split in ("train", "test") for label in ("cat", "dog")})
    assert read(root)[0] == BOTH
    assert read(root, layout="classes")[0] == [(None, "cat"), (None, "dog")]


def test_folders_named_as_splits_are_classes_where_it_is_said(draw_folder):
    root = draw_folder({f"{split}/{label}": 2 for split in ("Training", "Testing") for label in ("cat", "dog")})
    splits, source = read(root, layout="classes")
    assert splits == [(None, "Testing"), (None, "Training")]
    assert source.findings == ()
    with pytest.raises(UserError, match="^data.layout: splits, but no folder in .* is named as train$"):
        read(root / "Training", layout="splits")


def test_images_straight_in_splits_are_a_question_that_names_the_list_and_the_key(draw_folder):
    root = draw_folder({"train": 4, "test": 4})
    (root / "train.csv").write_text("id,breed\n0,pug\n1,pug\n2,boxer\n3,boxer\n")
    with pytest.raises(UserError) as caught:
        read(root)
    line = str(caught.value)
    assert "images lie straight in test/ and train/, without class folders" in line
    assert f"the labels may be in train.csv, columns id, breed: give '{root}/train.csv' as data.path" in line
    assert "`data.layout: classes`" in line
    assert read(root, layout="classes")[0] == [(None, "test"), (None, "train")]
    listed = DataConfig(path=str(root / "train.csv"), image_column="id", label_column="breed")
    assert [sample.file for sample in read_source(listed).samples] == [f"{root}/train/{i}.png" for i in range(4)]


def test_a_list_of_hugging_faces_beside_images_is_read(draw_folder):
    root = draw_folder({"x": 4})
    for image in (root / "x").iterdir():
        image.rename(root / image.name)
    (root / "x").rmdir()
    (root / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog\n")
    splits, source = read(root)
    assert splits == [(None, "cat"), (None, "dog")]
    assert source.findings[0].line().startswith("images and labels were taken from metadata.csv")


def test_masks_are_a_question_at_the_top_and_left_out_in_a_class(draw_folder):
    root = draw_folder({"images": 3, "masks": 3})
    with pytest.raises(UserError, match="masks/ holds files of the same names as images/, masks rather than a class"):
        read(root)
    assert read(root, layout="classes")[0] == [(None, "images"), (None, "masks")]
    shutil.rmtree(root)
    root = draw_folder({"cat/images": 3, "cat/masks": 3, "dog": 3})
    shutil.copy(root / "dog/0.png", root / "dog/0_mask.png")
    _, source = read(root)
    assert source.left_out == {"masks": 4}
    assert len(source.samples) == 6
    assert len(read(root, layout="classes")[1].samples) == 10


def test_images_that_differ_in_their_suffix_alone_are_said_and_used(draw_folder):
    root = draw_folder({"cat": 3, "dog": 3})
    for number in (0, 1):
        shutil.copy(root / f"cat/{number}.png", root / f"cat/{number}.jpg")
    _, source = read(root)
    (line,) = (finding.line() for finding in source.findings)
    assert line == (
        "2 images beside another one of that name with another suffix, both used, such as 'cat/0.jpg' and 'cat/0.png', "
        "'cat/1.jpg' and 'cat/1.png'; if these are masks or copies, move them elsewhere"
    )
    assert len(source.samples) == 8


def test_classes_may_share_the_names_of_their_files(draw_folder):
    _, source = read(draw_folder({"images": 3, "photos": 3}))
    assert len(source.samples) == 6


def test_a_test_split_without_labels_and_images_beside_the_classes_are_left_out_and_counted(draw_folder, draw_image):
    root = draw_folder({"train/cat": 2, "train/dog": 2, "test": 3, "docs": 0})
    draw_image(root / "overview.png", number=80)
    (root / "docs" / "licence.txt").write_text("")
    _, source = read(root)
    assert {sample.split for sample in source.samples} == {"train"}
    assert source.left_out == {"test without class folders": 3, "outside of class folders": 1, ".txt": 1}


def test_an_empty_folder_is_no_class_and_one_of_unread_files_is_a_mistake(draw_folder):
    root = draw_folder({"cat": 2, "dog": 2, "bird": 0})
    _, source = read(root)
    assert source.classes == ("cat", "dog")
    assert source.findings[0].line() == "the folder 'bird' has no images, and is no class"
    (root / "bird" / "0.xcf").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^data.path: class folder 'bird' has no images; its files were left out: .xcf 1$"
    ):
        read(root)


def test_a_link_from_one_class_to_another_takes_no_image_away(draw_folder):
    root = draw_folder({"cat": 2, "dog": 3})
    (root / "cat" / "more").symlink_to("../dog")
    samples = read(root)[1].samples
    assert sorted(sample.name for sample in samples if sample.label == "dog") == ["dog/0.png", "dog/1.png", "dog/2.png"]
    assert len(samples) == 5


def test_one_folder_under_two_names_is_one_class(draw_folder):
    root = draw_folder({"cat": 2, "dog": 2})
    (root / "puppy").symlink_to("dog")
    _, source = read(root)
    assert source.classes == ("cat", "dog")
    assert "'puppy' has no images of its own" in source.findings[0].line()


def test_folders_beside_the_splits_are_a_question_and_left_out_where_it_is_answered(draw_folder):
    root = draw_folder({"seg_train/cat": 2, "seg_train/dog": 2, "seg_pred": 3})
    with pytest.raises(
        UserError, match="'seg_pred' is no split, .*; `data.layout: splits` leaves it out, `classes` takes"
    ):
        read(root)
    splits, source = read(root, layout="splits")
    assert splits == [("train", "cat"), ("train", "dog")]
    assert source.left_out == {"beside the splits": 3}


@pytest.mark.parametrize("splits", [("val", "test"), ("test",)])
def test_splits_without_train_are_no_classes_but_where_it_is_said(draw_folder, splits):
    root = draw_folder({f"{split}/{label}": 2 for split in splits for label in ("cat", "dog")})
    with pytest.raises(
        UserError, match="^data.path: there is .*test/.* with class folders, but no train/; name the folder"
    ):
        read(root)
    flat = draw_folder({"flat/val": 2, "flat/test": 2}) / "flat"
    assert read(flat)[0] == [(None, "test"), (None, "val")]


def test_a_split_in_which_only_a_folder_of_its_own_name_lies_has_no_classes(draw_folder):
    _, source = read(draw_folder({"train/cat": 2, "train/dog": 2, "test/test": 3}))
    assert source.left_out == {"test without class folders": 3}
    root = draw_folder({"flat/train/train": 2, "flat/test1/test1": 2}) / "flat"
    with pytest.raises(
        UserError, match="^data.path: images lie straight in test1/ and train/, without class folders; "
    ):
        read(root)


def test_a_class_alone_in_its_split_is_that_class_whatever_folders_it_holds(draw_folder):
    root = draw_folder(
        {"train/cat/2019": 2, "train/cat/2020": 2, "train/dog/2019": 2, "test/cat/2019": 1, "test/cat/2020": 1}
    )
    assert read(root)[0] == [("test", "cat"), ("train", "cat"), ("train", "dog")]


def test_a_data_set_may_begin_below_any_number_of_folders(draw_folder):
    splits, source = read(draw_folder({"a/b/c/cat": 2, "a/b/c/dog": 2}))
    assert splits == [(None, "cat"), (None, "dog")]
    assert source.findings[0].line() == "the data set was taken to begin at 'a/b/c/'"
    assert read(draw_folder({"x/data/train/cat": 2, "x/data/train/dog": 2}) / "x")[0] == [
        ("train", "cat"),
        ("train", "dog"),
    ]


def test_masks_in_splits_are_a_question(draw_folder):
    root = draw_folder({"train/images": 2, "train/masks": 2, "test/images": 2})
    with pytest.raises(
        UserError, match="masks/ holds files of the same names as images/, .*; `data.layout: splits` takes both"
    ):
        read(root)
    assert ("train", "masks") in read(root, layout="splits")[0]


@pytest.mark.parametrize("place", ["labels.csv", "images/labels.csv"])
def test_a_list_beside_the_only_folder_is_named(draw_folder, place):
    root = draw_folder({"images": 2})
    (root / place).write_text("id,breed\n0,pug\n1,boxer\n")
    with pytest.raises(UserError) as caught:
        read(root)
    line = str(caught.value)
    assert line.startswith("data.path: 'images' is the only class; a classifier needs two; the labels may be in ")
    assert f"{place}, columns id, breed: give '{root / place}' as data.path" in line


def test_folders_in_classes_that_could_be_classes_or_splits_are_said(draw_folder):
    nested = {f"fold_{fold}/{label}": 2 for fold in (0, 1) for label in ("cat", "dog")}
    splits, source = read(draw_folder(nested))
    assert splits == [(None, "fold_0"), (None, "fold_1")]
    (line,) = (finding.line() for finding in source.findings)
    assert line.startswith(
        "each class's folder holds folders, such as 'fold_0/cat' and 'fold_0/dog'; all their images are 'fold_0'"
    )
    _, source = read(draw_folder({"part/cat/train": 2, "part/cat/test": 2, "part/dog": 2}) / "part")
    (line,) = (finding.line() for finding in source.findings)
    assert line.startswith(
        "the folders train, val or test in 'cat' were not taken for splits, since 'dog' has none; give"
    )


def test_of_several_lists_that_of_the_training_images_is_named(draw_folder):
    root = draw_folder({"train": 2, "test": 2})
    for split in ("train", "test"):
        (root / split / "metadata.csv").write_text("file_name,label\n0.png,pug\n1.png,boxer\n")
    with pytest.raises(UserError, match="the labels may be in train/metadata.csv, columns file_name, label: give"):
        read(root)


def test_a_folder_without_classes_says_what_lies_there(draw_folder):
    root = draw_folder({"x/images": 2, "packed": 0, "scans/a": 0, "scans/b": 0}) / "x"
    with pytest.raises(UserError, match="has no class folders, .*; 2 images straight in it, such as '0.png'$"):
        read(root / "images")
    (root / "../packed/images.zip").write_bytes(b"")
    with pytest.raises(UserError, match="; its files were left out: .zip 1, which must be unpacked$"):
        read(root / "../packed")
    (root / "../scans/a/1.mp4").write_bytes(b"")
    with pytest.raises(
        UserError, match="has no images; its files were left out: .mp4 1; images end in .jpg, .jpeg, .* more"
    ):
        read(root / "../scans")


def test_of_a_single_class_that_holds_folders_the_way_inside_is_named(draw_folder):
    root = draw_folder({"images/cat": 2, "images/dog": 2, "annotations": 0})
    (root / "annotations/0.xml").write_text("")
    with pytest.raises(UserError) as caught:
        read(root)
    assert str(caught.value) == (
        f"data.path: 'images' is the only class; a classifier needs two; give '{root}/images' as data.path if they are the "
        "folders in it"
    )
    assert len(read(root / "images")[1].samples) == 4
