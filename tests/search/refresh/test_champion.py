"""The images as they are now, told apart by what the champion knows of them."""

from pathlib import Path

import pytest

from search.promotion.packaged import PackagedModel
from search.refresh.champion import ChampionImages, find_bad_images, good_images
from trainable.config.trial import TrialConfig
from trainable.data.inventory import take_inventory
from trainable.data.readers.read import read_source
from trainable.data.versions import Entry
from trainable.data.versions import Version as DataVersion
from trainable.serving.encoded import EncodedImage

BEFORE = (
    Entry(sample_id=1, label="a", group="group x", split="train"),
    Entry(sample_id=2, label="a", group=None, split="val"),
    Entry(sample_id=3, label="b", group=None, split="test"),
    Entry(sample_id=4, label="b", group=None, split="train"),  # could not be decoded: no package knows it
    Entry(sample_id=5, label="b", group=None, split="train", present=False),
)
SPLITS = {1: "train", 2: "val", 3: "test"}


def champion(*now, splits=SPLITS, before=BEFORE, tried=None):
    """A champion that knows images 1 to 3, among these images now; ``tried`` are those of a later search, if there was one."""
    model = PackagedModel(
        folder=Path(),
        model=None,
        description={"config": TrialConfig().model_dump(mode="json")},
        splits=splits,
        root=Path(),
    )
    images = {one.sample_id: EncodedImage(one.sample_id, str(one.label), lambda: b"") for one in now}
    return ChampionImages(
        model=model,
        good_images=images,
        trained=DataVersion(before),
        reference=DataVersion(tried or before),
        current=DataVersion(now),
    )


def ids(images):
    return [one.sample_id for one in images]


def test_the_champion_is_asked_about_new_images_outside_the_test_of_groups_it_does_not_know():
    found = champion(
        *BEFORE[:4],
        Entry(sample_id=5, label="b", group=None, split="train"),  # was away when it was trained
        Entry(sample_id=6, label="a", group="group x", split="train"),
        Entry(sample_id=7, label="a", group="group y", split="val"),
        Entry(sample_id=8, label="a", group=None, split="test"),
        Entry(sample_id=9, label="b", group=None, split="train", present=False),
    )
    assert ids(found.new_images_outside_test) == [5, 7]


def test_groups_are_known_by_todays_data_where_the_package_tells_none():
    bare = tuple(Entry(sample_id=one.sample_id, label=None, group=None, split=one.split) for one in BEFORE[:3])
    now = (
        *BEFORE[:3],
        Entry(sample_id=6, label="a", group="group x", split="train"),
        Entry(sample_id=7, label="a", group=None, split="val"),
    )
    assert ids(champion(*now, before=bare).new_images_outside_test) == [7]


def test_relabelled_images_ask_the_champion_too_but_those_of_tests_that_are_not_its_own():
    other = Entry(sample_id=6, label="b", group=None, split="test")
    now = (
        Entry(sample_id=1, label="b", group=None, split="train"),
        BEFORE[1],
        Entry(sample_id=3, label="a", group=None, split="test"),
        Entry(sample_id=6, label="a", group=None, split="test"),
    )
    found = champion(*now, before=(*BEFORE, other))
    assert [(one.sample_id, one.label) for one in found.relabelled_images] == [(1, "b"), (3, "a")]
    assert found.new_images_outside_test == []


def test_how_good_it_was_counts_by_the_classes_that_its_test_images_had_then():
    found = champion(BEFORE[1], Entry(sample_id=3, label="a", group=None, split="test"))
    assert [(one.sample_id, one.label) for one in found.own_test_images] == [(3, "b")]
    unknown = champion(
        BEFORE[1],
        BEFORE[2],
        before=tuple(Entry(sample_id=one, label=None, group=None, split=SPLITS[one]) for one in SPLITS),
    )
    assert [(one.sample_id, one.label) for one in unknown.own_test_images] == [(3, "b")]


def test_after_a_later_search_without_a_new_champion_only_later_images_are_new():
    tried = (
        *BEFORE[:4],
        Entry(sample_id=5, label="b", group=None, split="train"),
        Entry(sample_id=6, label="a", group=None, split="test"),
    )
    now = (*tried, Entry(sample_id=7, label="a", group=None, split="train"))
    assert ids(champion(*now).new_images_outside_test) == [5, 7]
    found = champion(*now, tried=tried)
    assert ids(found.new_images_outside_test) == [7]
    assert ids(found.held_out_images()) == [2, 5]  # its validation image, and what it was not trained on
    assert ids(champion(*now).held_out_images()) == [2]


def test_images_to_adapt_to_are_told_apart():
    before = (
        *BEFORE,
        Entry(sample_id=10, label=None, group=None, split="target"),
        Entry(sample_id=11, label=None, group=None, split="target_val"),
    )
    now = (
        *before[:4],
        *before[5:],
        Entry(sample_id=12, label=None, group=None, split="target"),
        Entry(sample_id=13, label=None, group=None, split="target_test"),
    )
    found = champion(*now, before=before, splits=SPLITS | {10: "target", 11: "target_val"})
    assert found.new_images_outside_test == []
    assert ids(found.new_target_images) == [12]
    assert ids(found.held_out_images(target=True)) == [11]


def test_of_its_own_images_those_are_asked_that_are_there_and_can_be_decoded():
    found = champion(*BEFORE[1:4])
    assert ids(found.images_of_split("train")) == []
    assert ids(found.images_of_split("test")) == [3]
    frozen = DataVersion(
        (
            Entry(sample_id=3, label="b", group=None, split="test"),
            Entry(sample_id=2, label="a", group=None, split="test"),
            Entry(sample_id=4, label="b", group=None, split="test"),
        )
    )
    assert ids(found.images_not_trained_on(sorted(frozen.ids("test")))) == [3]  # 2 chose it, 4 cannot be decoded


@pytest.fixture
def inventory(tmp_path, draw_folder):
    folder = draw_folder({"a": 3, "b": 3})
    (folder / "a" / "broken.png").write_bytes(b"no image")
    config = TrialConfig.model_validate({"data": {"path": str(folder)}})
    return take_inventory(read_source(config.data), cache=tmp_path / "cache.parquet"), config


def test_only_images_that_are_asked_for_are_tried_to_decode(inventory):
    taken, config = inventory
    every = [int.from_bytes(digest[:8], "little") for digest in taken.digests]
    found = find_bad_images(taken, among=every, config=config)
    assert list(found.values()) == ["a/broken.png"]
    assert find_bad_images(taken, among=set(every) - found.keys(), config=config) == {}
    assert len(good_images(taken, bad=found)) == 6
