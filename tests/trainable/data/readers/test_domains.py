"""Source and target domains as one data set, the target's labels kept out."""

import csv

import numpy as np
import pytest

from trainable.config.trial import DataConfig
from trainable.data.pack import open_pack
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import TARGET_SPLITS
from trainable.data.report import examine
from trainable.errors import UserError


@pytest.fixture
def manifest(tmp_path, draw_image):
    """A function that writes images of two domains and the CSV that says which is which."""

    def write(*, labels=None, name="all.csv", domains=("day", "night"), count=24):
        rows = []
        for index in range(count):
            draw_image(tmp_path / "pictures" / f"{index}.png", number=index)
            domain = domains[index % len(domains)]
            label = "cat" if index % 4 < 2 else "dog"
            if labels is not None and domain == "night":
                label = labels[index // 2]
            rows.append({"image": f"pictures/{index}.png", "label": label, "kind": domain})
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return str(tmp_path / name)

    return write


def by_value(path, cache, **values):
    return DataConfig(path=path, cache=cache, domain_column="kind", target="night", **values)


def contents(pack):
    splits = {split: pack.indices(split).tolist() for split in ("train", "val", "test", *TARGET_SPLITS)}
    return splits, pack.labels.tolist(), pack.sample_ids.tolist(), pack.fingerprint


def test_labels_of_the_target_never_reach_the_pack(manifest, cache, spec):
    pack = open_pack(by_value(manifest(), cache), spec)
    of_target = np.concatenate([pack.indices(split) for split in TARGET_SPLITS])
    assert sorted(np.array(pack.domains)[of_target]) == ["night"] * 12
    assert set(pack.labels[of_target]) == {-1}
    assert set(np.array(pack.domains)[np.concatenate([pack.indices(s) for s in ("train", "val", "test")])]) == {"day"}
    assert all(len(pack.indices(split)) for split in TARGET_SPLITS)
    assert b"cat" not in b"".join(str(pack.names[index]).encode() for index in of_target)


def test_other_labels_or_none_in_the_target_change_nothing(manifest, cache, spec):
    expected = contents(open_pack(by_value(manifest(), cache), spec))
    for number, labels in enumerate((["dog"] * 6 + ["cat"] * 6, [""] * 12, ["cat"] * 12)):
        path = manifest(labels=labels, name=f"{number}.csv")
        assert contents(open_pack(by_value(path, cache), spec)) == expected


def test_an_oracle_has_them_and_another_fingerprint(manifest, cache, spec):
    path = manifest()
    blind, oracle = (open_pack(by_value(path, cache, oracle=one), spec) for one in (False, True))
    assert blind.fingerprint != oracle.fingerprint
    assert set(oracle.labels[oracle.indices("target")]) == {0, 1}
    assert [oracle.indices(split).tolist() for split in TARGET_SPLITS] == [
        blind.indices(split).tolist() for split in TARGET_SPLITS
    ]
    assert oracle.counts() == blind.counts()


def test_several_sources_may_be_chosen(manifest, cache, spec):
    path = manifest(domains=("day", "night", "dusk", "dawn"), count=48)
    every = open_pack(by_value(path, cache), spec)
    some = open_pack(by_value(path, cache, source=["day", "dusk"]), spec)
    assert {domain for domain in every.domains if domain != "night"} == {"day", "dusk", "dawn"}
    assert set(some.domains) == {"day", "dusk", "night"}


def test_domains_may_be_data_sets_of_their_own(tmp_path, draw_image, cache, spec):
    for index in range(18):
        for place in ("one", "two"):
            number = index + (100 if place == "two" else 0)
            draw_image(tmp_path / place / ("cat" if index % 2 else "dog") / f"{index}.png", number=number)
        draw_image(tmp_path / "bare" / f"{index}.png", number=200 + index)
    sources = [str(tmp_path / "one"), str(tmp_path / "two")]
    pack = open_pack(DataConfig(source=sources, target=str(tmp_path / "bare"), cache=cache), spec)
    assert set(pack.domains) == {*sources, str(tmp_path / "bare")}
    assert sum(sum(classes.values()) for classes in pack.counts().values()) == 36
    assert sum(len(pack.indices(split)) for split in TARGET_SPLITS) == 18


def test_a_target_manifest_needs_no_label_column(manifest, tmp_path, draw_image, cache, spec):
    for index in range(12):
        draw_image(tmp_path / "bare" / f"{index}.png", number=300 + index)
    (tmp_path / "bare.csv").write_text("image\n" + "\n".join(f"bare/{index}.png" for index in range(12)))
    config = DataConfig(source=[manifest()], target=str(tmp_path / "bare.csv"), cache=cache)
    pack = open_pack(config, spec)
    assert sum(len(pack.indices(split)) for split in TARGET_SPLITS) == 12
    with pytest.raises(UserError, match=r"^data.label_column: there is no column 'label'"):
        open_pack(DataConfig(path=str(tmp_path / "bare.csv"), cache=cache), spec)


def test_the_solar_cells_are_two_domains():
    source = read_source(DataConfig(format="elpv", source=["mono"], target="poly"))
    assert (len(source.samples), len(source.target)) == (1074, 1550)
    assert source.findings == ()


MISTAKES = {
    "no such target": (
        {"target": "nigth"},
        {},
        "data.target: there is no domain 'nigth'; did you mean 'night'?",
    ),
    "no such source": (
        {"source": ["dya"]},
        {},
        "data.source: there is no domain 'dya'; did you mean 'day'?",
    ),
    "one domain": (
        {},
        {"domains": ("night",)},
        "data.domain_column: has one value, 'night'; adapting needs a second domain",
    ),
    "no column": (
        {"domain_column": None},
        {},
        "data.target: 'night' is a value of data.domain_column, and there is none; where the domains are data sets of their "
        "own, name them in data.source and data.target without data.path",
    ),
    "open set": (
        {},
        {"labels": ["cat"] * 6 + ["cow"] * 3 + ["bee"] * 3},
        "data.target: has classes that the source does not, 'bee', 'cow' (an open set); leave those images out, or give the "
        "target without labels, as a folder without class folders",
    ),
    "an oracle of nothing": (
        {"oracle": True},
        {"labels": [""] * 12},
        "data.oracle: reads the target's labels, and images of 'night' have none",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, manifest, cache, spec):
    values, drawn, line = MISTAKES[case]
    config = by_value(manifest(**drawn), cache).model_copy(update=values)
    with pytest.raises(UserError) as caught:
        open_pack(config, spec)
    assert str(caught.value) == line


def test_a_source_without_labels_is_a_mistake(manifest, cache, spec):
    path = manifest(labels=[""] * 12)
    config = by_value(path, cache).model_copy(update={"target": "day"})
    with pytest.raises(
        UserError, match=r"^data.label_column: 12 source images have no label, the first is 'pictures/1.png'$"
    ):
        open_pack(config, spec)


def test_a_target_that_is_the_source_is_refused(tmp_path, draw_image, cache, spec):
    for place in ("one", "two"):
        for index in range(18):
            draw_image(tmp_path / place / ("cat" if index % 2 else "dog") / f"{place}{index}.png", number=index)
    config = DataConfig(source=[str(tmp_path / "one")], target=str(tmp_path / "two"), cache=cache)
    for look in (lambda: open_pack(config, spec), lambda: examine(config)):
        with pytest.raises(UserError) as caught:
            look()
        assert str(caught.value) == "data.target: every image of it is among those of data.source; name another domain"
    draw_image(tmp_path / "two/cat/new.png", number=99)
    (line,) = [finding.line() for finding in examine(config).findings if finding.kind == "in_both_domains"]
    assert line.startswith(
        "data.target: 18 images of it among those of data.source as well, where labels are learnt, such as"
    )


def test_a_target_folder_may_have_splits_without_classes(tmp_path, draw_image, cache, spec):
    for index in range(18):
        draw_image(tmp_path / "one" / ("cat" if index % 2 else "dog") / f"{index}.png", number=index)
        split = ("train", "val", "test")[index % 3]
        draw_image(tmp_path / "bare" / split / f"{index}.png", number=100 + index)
    pack = open_pack(DataConfig(source=[str(tmp_path / "one")], target=str(tmp_path / "bare"), cache=cache), spec)
    assert [len(pack.indices(split)) for split in TARGET_SPLITS] == [6, 6, 6]


def test_sources_must_agree_about_splits(tmp_path, draw_image, cache, spec):
    for index in range(18):
        label, split = "cat" if index % 2 else "dog", ("train", "val", "test")[index // 6]
        draw_image(tmp_path / "one" / label / f"{index}.png", number=index)
        draw_image(tmp_path / "two" / split / label / f"{index}.png", number=100 + index)
        draw_image(tmp_path / "bare" / f"{index}.png", number=200 + index)
    sources = [str(tmp_path / "one"), str(tmp_path / "two")]
    with pytest.raises(UserError, match=r"^data.source: some of the data sets bring splits of their own, some do not"):
        open_pack(DataConfig(source=sources, target=str(tmp_path / "bare"), cache=cache), spec)


def test_a_path_that_is_not_there_is_named_by_its_own_field(tmp_path, draw_image, cache, spec):
    for index in range(18):
        draw_image(tmp_path / "one" / ("cat" if index % 2 else "dog") / f"{index}.png", number=index)
    config = DataConfig(source=[str(tmp_path / "one")], target=str(tmp_path / "onne"), cache=cache)
    with pytest.raises(UserError, match=r"^data.target: '.*onne' does not exist; did you mean '.*one'\?$"):
        open_pack(config, spec)


def test_a_target_too_small_to_measure_is_one_line(tmp_path, draw_image, cache, spec):
    for index in range(18):
        draw_image(tmp_path / "one" / ("cat" if index % 2 else "dog") / f"{index}.png", number=index)
    for index in range(5):
        draw_image(tmp_path / "bare" / f"{index}.png", number=200 + index)
    with pytest.raises(
        UserError,
        match=r"^data.target: 5 images to adapt to leave 1 for its target_val split, which needs 2; with 14 images",
    ):
        open_pack(DataConfig(source=[str(tmp_path / "one")], target=str(tmp_path / "bare"), cache=cache), spec)


def test_a_partial_set_is_said(manifest, cache):
    (finding,) = read_source(by_value(manifest(labels=["cat"] * 12), cache)).findings
    assert finding.line() == (
        "data.target: no image of it is labelled 'dog' (a partial set), which methods that align domains can suffer by"
    )
