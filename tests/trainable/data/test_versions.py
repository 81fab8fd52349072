import shutil

import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.fingerprint import id_of, image_digests
from trainable.data.pack import open_pack
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import SPLITS
from trainable.data.versions import Entry, Version, difference, read_version, version_of
from trainable.errors import UserError
from trainable.model.backbone import input_spec
from trainable.serving.package import images_table


@pytest.fixture
def images(tmp_path, cells):
    """Forty cells in two folders that may be changed."""
    for index, path in enumerate(cells):
        folder = tmp_path / "images" / ("even" if index % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return tmp_path / "images"


def taken(folder, *, keep_splits=None):
    config = DataConfig(path=str(folder), keep_splits=keep_splits and str(keep_splits))
    source = read_source(config)
    return version_of(source, digests=image_digests(source), config=config)


def files(folder, label):
    return sorted((folder / label).iterdir())


def by_id(version):
    return {entry.sample_id: entry.split for entry in version.entries}


def classes(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_version_is_read_back_as_it_was_written(images, tmp_path):
    version = taken(images)
    version.write(tmp_path / "version.parquet")
    assert read_version(tmp_path / "version.parquet") == version
    assert sum(version.counts.values()) == len(version.entries)


def test_earlier_images_keep_their_split_and_images_that_come_back_too(images, tmp_path):
    first, kept = taken(images), tmp_path / "first.parquet"
    first.write(kept)
    label = classes(images)[0]
    away = [shutil.move(path, tmp_path) for path in files(images, label)[:3]]
    without = taken(images, keep_splits=kept)
    assert [entry.present for entry in without.entries].count(False) == 3
    assert by_id(without) == by_id(first)
    without.write(tmp_path / "second.parquet")
    for path in away:
        shutil.move(path, images / label)
    assert by_id(taken(images, keep_splits=tmp_path / "second.parquet")) == by_id(first)


def test_the_difference_names_what_came_went_and_was_relabelled(images, tmp_path):
    before = taken(images)
    before.write(tmp_path / "before.parquet")
    one, other = classes(images)[:2]
    files(images, one)[0].unlink()
    moved = files(images, one)[0]
    moved.rename(images / other / f"moved_{moved.name}")
    for index, path in enumerate(files(images, other)[:4]):
        (images / "new").mkdir(exist_ok=True)
        (images / "new" / f"{index}.png").write_bytes(path.read_bytes() + b"\0")
    found = difference(before, taken(images, keep_splits=tmp_path / "before.parquet"), bad=["x.png"])
    assert found.added == {"new": 4}
    assert found.removed == {one: 1}
    assert found.relabelled == {f"{one} -> {other}": 1}
    assert (found.new_classes, found.vanished_classes) == (("new",), ())
    assert found.num_changed == 6
    assert found.said() == (
        f"{len(before.entries)} -> {len(before.entries) + 3} images, added 4 (4 new), removed 1 (1 {one}), "
        f"relabelled 1 (1 {one} -> {other}), new classes 'new', 1 bad images (x.png)"
    )


def test_a_renamed_and_touched_image_is_no_difference(images):
    before = taken(images)
    path = files(images, classes(images)[0])[0]
    path.rename(path.with_name("renamed.png")).touch()
    assert difference(before, taken(images)).num_changed == 0


def test_labels_that_are_not_known_are_not_compared(images, tmp_path):
    version = taken(images)
    version.write(tmp_path / "whole.parquet")
    pq.write_table(pq.read_table(tmp_path / "whole.parquet", columns=["sample_id", "split"]), tmp_path / "bare.parquet")
    found = difference(read_version(tmp_path / "bare.parquet"), version)
    assert found.relabelled is None
    assert (found.num_changed, found.new_classes) == (0, ())


def test_a_group_that_unites_images_of_two_splits_stays_held_out(tmp_path, images):
    version = taken(images)
    version.write(tmp_path / "version.parquet")
    held_out = next(entry.sample_id for entry in version.entries if entry.split == "test")
    trained = next(entry.sample_id for entry in version.entries if entry.split == "train")
    rows = [(path, label) for label in classes(images) for path in files(images, label)]
    config = DataConfig(path=str(images))
    source = read_source(config)
    ids = [int.from_bytes(digest[:8], "little") for digest in image_digests(source)]
    group = {sample.name: str(index) for index, sample in enumerate(source.samples)}
    for sample, sample_id in zip(source.samples, ids, strict=True):
        if sample_id in (held_out, trained):
            group[sample.name] = "united"
    lines = [f"{path.relative_to(images)},{label},{group[str(path.relative_to(images))]}" for path, label in rows]
    (images / "list.csv").write_text("\n".join(["image,label,group", *lines]))
    grouped = DataConfig(
        path=str(images / "list.csv"), group_column="group", keep_splits=str(tmp_path / "version.parquet")
    )
    source = read_source(grouped)
    united = by_id(version_of(source, digests=image_digests(source), config=grouped))
    assert united == by_id(version) | {trained: "test"}


def test_a_group_keeps_its_split_by_what_a_package_tells_though_every_image_is_written_anew(tmp_path, images):
    rows = [(path, label) for label in classes(images) for path in files(images, label)]
    lines = [f"{path.relative_to(images)},{label},patient {index // 2}" for index, (path, label) in enumerate(rows)]
    (images / "list.csv").write_text("\n".join(["image,label,group", *lines]))
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(images / "list.csv"), "group_column": "group", "image_size": 32, "split_seed": 3},
            "model": {"name": "resnet10t", "weights": "random"},
        }
    )
    pack = open_pack(config.data, input_spec(config.model, image_size=32, channels=3))
    pq.write_table(images_table(pack), tmp_path / "images.parquet")
    before = {pack.groups[row]: split for split in SPLITS for row in pack.indices(split)}
    for path, _ in rows:
        Image.open(path).rotate(90).save(path)
    later = config.data.model_copy(update={"keep_splits": str(tmp_path / "images.parquet"), "split_seed": 4})
    source = read_source(later)
    digests = image_digests(source)
    splits = {entry.sample_id: entry.split for entry in version_of(source, digests=digests, config=later).present}
    assert {one.group: splits[id_of(digest)] for one, digest in zip(source.samples, digests, strict=True)} == before
    assert "patient" not in str(read_version(tmp_path / "images.parquet"))


def test_a_file_that_holds_no_splits_is_said(images, tmp_path):
    (tmp_path / "wrong.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="data.keep_splits: .* is no Parquet file with the columns"):
        taken(images, keep_splits=tmp_path / "wrong.parquet")


def test_where_labels_are_not_known_the_classes_may_be():
    before = Version(tuple(Entry(sample_id=number, label=None, group=None, split="train") for number in range(3)))
    now = Version(tuple(Entry(sample_id=number, label="rust", group=None, split="train") for number in range(2)))
    found = difference(before, now, classes=["a", "b"])
    assert (found.new_classes, found.vanished_classes) == (("rust",), ("a", "b"))
    assert not found.only_removed  # it may have been relabelled too


def test_only_removed_is_when_nothing_else_is_known_to_have_happened():
    before = Version(tuple(Entry(sample_id=number, label="a", group=None, split="train") for number in range(3)))
    assert difference(before, Version(before.entries[:2])).only_removed
    assert not difference(
        before, Version((*before.entries[:2], Entry(sample_id=9, label="a", group=None, split="train")))
    ).only_removed
    assert not difference(
        before, Version((before.entries[0], Entry(sample_id=1, label="b", group=None, split="train")))
    ).only_removed
    assert not difference(before, before).only_removed
