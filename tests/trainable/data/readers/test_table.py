"""Tables of images in nested folders and behind an address are the data set that a flat folder of them is."""

import random
import re
import shutil
import subprocess
import sys

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from trainable.config.trial import DataConfig
from trainable.data.fingerprint import content_fingerprint
from trainable.data.inventory import take_inventory
from trainable.data.pack import open_pack
from trainable.data.readers.file_state import has_marker, quick_state
from trainable.data.readers.read import read_source
from trainable.errors import UserError


@pytest.fixture
def table(cells):
    """Twelve photographs of solar cells with label and split."""
    labels = [("whole", "cracked")[number % 2] for number in range(12)]
    splits = [("train", "train", "val", "val", "test", "test")[number % 6] for number in range(12)]
    return pa.table({"image": [cell.read_bytes() for cell in cells[:12]], "label": labels, "split": splits})


@pytest.fixture
def flat(tmp_path, table):
    """The same images as one Parquet file in a folder."""
    (tmp_path / "flat").mkdir()
    pq.write_table(table, tmp_path / "flat" / "cells.parquet")
    return tmp_path / "flat"


def write_hive(table, folder, *, by, filesystem=None):
    names = pa.schema([table.schema.field(name) for name in by])
    ds.write_dataset(
        table,
        folder,
        format="parquet",
        partitioning=ds.partitioning(names, flavor="hive"),
        filesystem=filesystem,
    )


@pytest.fixture
def hive(tmp_path, table):
    """The same images in folders `split=train/label=whole`."""
    write_hive(table, tmp_path / "hive", by=["split", "label"])
    return tmp_path / "hive"


@pytest.fixture
def memory():
    """An object store in this process, emptied before and after."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def address(memory, table):
    """The same images in nested folders behind an address."""
    filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(memory))
    write_hive(table, "/bucket/cells", by=["split", "label"], filesystem=filesystem)
    return "memory://bucket/cells"


def read(path, **fields):
    return read_source(DataConfig(path=str(path), **fields))


def rows(source):
    return sorted((sample.label, sample.split, sample.read_bytes()) for sample in source.samples)


def complaint(path, **fields):
    with pytest.raises(UserError) as caught:
        read(path, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nested_folders_give_the_columns_that_their_names_say(flat, hive):
    source = read(hive)
    assert rows(source) == rows(read(flat))
    assert source.given_splits == ("train", "val", "test")
    assert {sample.name for sample in source.samples if sample.split == "val"} == {
        f"split=val/label={label}/part-0.parquet:{row}" for label in ("cracked", "whole") for row in (0, 1)
    }


def test_a_loop_of_links_in_a_table_s_folders_ends(hive):
    expected = rows(read(hive))
    for name in ("first", "second"):
        (hive / name).symlink_to(hive, target_is_directory=True)
    assert rows(read(hive)) == expected


def test_flat_nested_and_remote_tables_have_one_fingerprint(flat, hive, address):
    fingerprints = {content_fingerprint(read(path)) for path in (flat, hive, address, flat / "cells.parquet")}
    assert len(fingerprints) == 1


@pytest.mark.parametrize("kind", ["hive", "address"])
def test_a_nested_table_makes_the_pack_that_a_flat_one_makes(request, flat, kind, cache, spec):
    path = str(request.getfixturevalue(kind))
    expected, found = (open_pack(DataConfig(path=str(one), cache=cache), spec) for one in (flat, path))
    assert found.fingerprint == expected.fingerprint
    assert (
        found.counts() == expected.counts() == {split: {"cracked": 2, "whole": 2} for split in ("train", "val", "test")}
    )
    assert np.array_equal(found.sample_ids, expected.sample_ids)
    assert all(np.array_equal(found.image(index), expected.image(index)) for index in range(12))
    assert open_pack(DataConfig(path=path, cache=cache), spec).path == found.path


def test_the_files_of_samples_say_where_their_bytes_are(flat, hive, address):
    assert {sample.file for sample in read(flat).samples} == {str(flat / "cells.parquet")}
    assert {sample.file for sample in read(hive).samples} == {str(file) for file in hive.rglob("*.parquet")}
    found = read(address)
    assert {sample.file for sample in found.samples} == set(found.files)
    for file in found.files:
        assert file.startswith(f"{address}/split=")
        with fsspec.open(file) as opened:
            assert opened.read(4) == b"PAR1"


def test_a_label_that_looks_like_a_number_stays_the_text_it_is(tmp_path, table):
    table = table.set_column(1, "label", pa.array(["01", "1"] * 6))
    write_hive(table, tmp_path / "hive", by=["label"])
    assert read(tmp_path / "hive").classes == ("01", "1")


def test_odd_values_in_folder_names_are_read_as_hive_writes_them(tmp_path, table):
    table = table.set_column(1, "label", pa.array(["a b/c", "ü=1"] * 6))
    write_hive(table, tmp_path / "hive", by=["label"])
    assert read(tmp_path / "hive").classes == ("a b/c", "ü=1")
    (tmp_path / "hive" / "label=__HIVE_DEFAULT_PARTITION__").mkdir()
    pq.write_table(table.drop(["label"]), tmp_path / "hive" / "label=__HIVE_DEFAULT_PARTITION__" / "0.parquet")
    assert "12 rows have no label" in complaint(tmp_path / "hive")


def test_columns_of_folders_may_be_any_that_a_setting_names(tmp_path, table):
    table = table.append_column("site", pa.array(["north", "south", "south"] * 4)).drop(["split"])
    write_hive(table, tmp_path / "hive", by=["site"])
    source = read(tmp_path / "hive", domain_column="site", target="south")
    assert (len(source.samples), len(source.target)) == (4, 8)
    assert complaint(tmp_path / "hive", group_column="sight").endswith(
        "there is no column 'sight'; did you mean 'site'?"
    )


def test_folders_named_as_splits_give_the_split(tmp_path, table):
    for name, split in {"train": "train", "valid": "val", "test": "test"}.items():
        (tmp_path / "nested" / name / "deep").mkdir(parents=True)
        part = table.filter(pa.compute.equal(table["split"], split)).drop(["split"])
        pq.write_table(part, tmp_path / "nested" / name / "deep" / "0.parquet")
    assert {split: sum(found.values()) for split, found in read(tmp_path / "nested").counts().items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }


def test_hidden_and_unfinished_parts_are_left_out(hive, flat):
    for name in ("_temporary/0/part-1.parquet", ".hidden/0.parquet", "split=train/.part.parquet"):
        (hive / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / "cells.parquet", hive / name)
    assert len(read(hive).samples) == 12


def test_images_beside_a_table_below_them_are_still_a_folder_of_images(draw_folder, flat):
    root = draw_folder({"cat": 1, "dog": 1})
    (root / "cat" / "features").mkdir()
    shutil.copy(flat / "cells.parquet", root / "cat" / "features")
    assert [sample.name for sample in read(root).samples] == ["cat/0.png", "dog/0.png"]


def test_a_picture_beside_a_table_does_not_make_it_a_folder_of_images(flat, draw_image):
    draw_image(flat / "preview.png", number=0)
    assert len(read(flat).samples) == 12


def test_a_single_file_is_no_split_whatever_its_name(tmp_path, table):
    pq.write_table(table.drop(["split"]), tmp_path / "train.parquet")
    assert read(tmp_path / "train.parquet").given_splits == ()


def test_one_remote_file_is_read_whatever_its_kind(memory, table, flat):
    for name, write in {
        "a.parquet": pq.write_table,
        "a.feather": pyarrow.feather.write_feather,
        "a.arrow": write_stream,
    }.items():
        with memory.open(f"/bucket/{name}", "wb") as file:
            write(table, file)
        source = read(f"memory://bucket/{name}")
        assert rows(source) == rows(read(flat))
        assert source.samples[3].name == f"{name}:3"


def write_stream(table, file):
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def test_the_quick_state_of_remote_files_follows_what_is_written(address, memory):
    config = DataConfig(path=address)
    first = quick_state(config)
    assert first.num_files == 6
    assert quick_state(config) == first
    assert not has_marker(config, "_SUCCESS")
    memory.touch("/bucket/cells/_SUCCESS")
    assert has_marker(config, "_SUCCESS")
    assert quick_state(config) == first
    file = min(memory.find("/bucket/cells/split=train"))
    memory.pipe_file(file, memory.cat_file(file))
    second = quick_state(config)
    assert second.key != first.key
    assert second.newest > first.newest
    memory.rm(file)
    assert quick_state(config).num_files == 5


def test_remote_files_that_did_not_change_are_not_read_again(address, memory, tmp_path):
    for stored in memory.store.values():
        stored.created = stored.modified = stored.created.replace(year=2020)
    first, second = (take_inventory(read(address), cache=tmp_path / "stock.parquet") for _ in range(2))
    assert (first.num_read, second.num_read) == (12, 0)
    file = min(memory.find("/bucket/cells/split=train"))
    memory.pipe_file(file, memory.cat_file(file))
    third = take_inventory(read(address), cache=tmp_path / "stock.parquet")
    assert third.num_read == 2
    assert first.fingerprint == second.fingerprint == third.fingerprint


def test_shuffled_rows_and_other_partitions_are_the_same_data(tmp_path, table, flat):
    order = list(range(12))
    random.Random(0).shuffle(order)
    write_hive(table.take(order), tmp_path / "hive", by=["label"])
    assert content_fingerprint(read(tmp_path / "hive")) == content_fingerprint(read(flat))


def test_images_are_loaded_with_the_first_one_that_is_asked_for(table, flat):
    pool, size = pa.default_memory_pool(), sum(len(image) for image in table["image"].to_pylist())
    before = pool.bytes_allocated()
    source = read(flat)
    assert pool.bytes_allocated() - before < size / 2
    source.samples[0].read_bytes()
    after_one = pool.bytes_allocated() - before
    assert all(sample.read_bytes() for sample in source.samples)
    assert size <= after_one == pool.bytes_allocated() - before


def test_a_table_that_vanishes_before_it_is_read_is_one_line_rather_than_bad_images(flat, tmp_path):
    source = read(flat)
    (flat / "cells.parquet").unlink()
    with pytest.raises(UserError, match=r"^data.path: '.*cells.parquet' cannot be read to its end \([^\n]*\)$"):
        take_inventory(source, cache=tmp_path / "stock.parquet")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://bucket/cellz", "data.path: 'memory://bucket/cellz' does not exist"),
        (
            "nowhere://bucket",
            "data.path: 'nowhere://bucket' is no address that is read; one begins with s3, gs, gcs, az, abfs, abfss, hf and "
            "`://`, and leads to no other one (`::`)",
        ),
        (
            "memory://bucket/notes.csv",
            "data.path: 'memory://bucket/notes.csv' is an address, and what is read from one are Parquet, Arrow and Feather "
            "files that hold the images themselves",
        ),
        ("memory://bucket/empty", "data.path: 'memory://bucket/empty' has no Parquet files"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(address, memory, path, message):
    memory.pipe_file("/bucket/notes.csv", b"image,label\n")
    memory.pipe_file("/bucket/empty/notes.txt", b"")
    assert complaint(path) == message
    if "Parquet" not in message:
        with pytest.raises(UserError, match=re.escape(message)):
            quick_state(DataConfig(path=path))


def test_an_address_is_a_table_alone(address):
    assert "is an address" in complaint(address, format="folder")
    assert "is an address" in complaint(address, format="manifest")


def test_an_address_in_a_domain_is_named_by_its_field(address, flat):
    with pytest.raises(UserError, match=r"^data.target: 'memory://bucket/cellz' does not exist$"):
        read_source(DataConfig(source=[str(flat)], target="memory://bucket/cellz"))


def test_a_protocol_without_its_package_says_which():
    code = (
        "import sys; sys.modules.update(s3fs=None)\n"  # as where it is not installed
        "from trainable.config.trial import DataConfig\nfrom trainable.data.readers.read import read_source\n"
        "try: read_source(DataConfig(path='s3://bucket/cells'))\nexcept Exception as error: print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == ("UserError data.path: 's3://bucket/cells' cannot be reached (Install s3fs to access S3)\n")
