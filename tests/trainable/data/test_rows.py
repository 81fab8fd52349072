import pytest

from trainable.config.trial import DataConfig
from trainable.data.readers.sample import Found, Sample, make_source
from trainable.data.rows import assign, assigned_rows
from trainable.errors import SettingsError


def sample(name, *, label="cat", group=None):
    return Sample(name=name, label=label, split=None, group=group, domain=None, file=name, read_bytes=bytes)


def source_of(samples):
    return make_source(Found(samples, [sample.file for sample in samples]))


def digests_of(contents):
    return [content.encode().ljust(32, b"_") for content in contents]


def test_a_class_that_only_trains_is_in_train_alone_and_the_others_everywhere():
    samples = [
        sample(f"{label}{i}", label=label) for label, n in (("cat", 9), ("dog", 9), ("owl", 2)) for i in range(n)
    ]
    digests = digests_of([sample.name for sample in samples])
    rows = assigned_rows(source_of(samples), digests=digests, config=DataConfig(path="x", rare="train_only"))
    places = {(row.sample.label, row.split) for row in rows}
    everywhere = {(label, split) for label in ("cat", "dog") for split in ("train", "val", "test")}
    assert places == everywhere | {("owl", "train")}
    with pytest.raises(SettingsError, match="'owl' \\(2 images\\)"):
        assigned_rows(source_of(samples), digests=digests, config=DataConfig(path="x"))
    assert assign(source_of(samples), digests=digests, config=DataConfig(path="x")).rows == ()


def test_an_image_of_two_groups_keeps_both_out_of_two_splits():
    samples = [sample(f"{label}{i}", label=label, group=f"{label}{i}") for label in ("cat", "dog") for i in range(12)]
    copies = [sample(f"again{i}", group=f"q{i}") for i in range(6)]
    more = [sample(f"more{i}", group=f"q{i}") for i in range(6)]
    contents = [*(sample.name for sample in samples), *(f"cat{i}" for i in range(6)), *(sample.name for sample in more)]
    for seed in range(5):
        config = DataConfig(path="x", group_column="patient", split_seed=seed)
        rows = assigned_rows(source_of([*samples, *copies, *more]), digests=digests_of(contents), config=config)
        of_image, of_group = {}, {}
        for row in rows:
            of_image.setdefault(row.sample_id, set()).add(row.split)
            of_group.setdefault(row.sample.group, set()).add(row.split)
        assert {len(splits) for splits in (*of_image.values(), *of_group.values())} == {1}
        assert len({row.split for row in rows}) == 3
