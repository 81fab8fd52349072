"""A Parquet or Arrow file of anybody's runs no code, and takes no process down, whichever way it comes in."""

import os
import pickle
import re
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainable.config.trial import DataConfig
from trainable.data import inventory, pack_builder, versions
from trainable.data.kept_splits import known_splits
from trainable.data.pack import Pack, open_pack
from trainable.data.readers.arrow_files import foreign_schema, load_foreign, load_listed, load_own
from trainable.data.readers.read import read_source
from trainable.errors import UserError

SUFFIXES = (".parquet", ".arrow", ".feather")


class Touch:
    """What is unpickled as a call."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def ran(tmp_path):
    """The folder that a payload makes when it is unpickled."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def payload(ran):
    """A function that makes a column of pickles whose values are unpickled by Ray's type, as `ray.tune` registers it."""
    import ray.data  # noqa: F401
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    def column(length):
        pickled = pa.array([pickle.dumps(Touch(ran))] * length, pa.large_binary())
        return pa.ExtensionArray.from_storage(ArrowPythonObjectType(), pickled)

    return column


@pytest.fixture
def images(cells):
    """Twelve photographs with a label each, as a table's columns."""
    return {"image": [cell.read_bytes() for cell in cells[:12]], "label": ["whole", "cracked"] * 6}


def write(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with (
            pa.ipc.new_stream(path, table.schema)
            if path.suffix == ".arrow"
            else pa.ipc.new_file(path, table.schema) as writer
        ):
            writer.write_table(table)
    return str(path)


def complaint(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_payload_of_these_tests_runs_where_a_value_is_asked_for(payload, ran):
    payload(1)[0].as_py()
    ran.rmdir()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_beside_the_bytes_of_an_image_is_refused_by_column_and_type(tmp_path, images, payload, suffix):
    image = pa.StructArray.from_arrays([pa.array(images["image"]), payload(12)], ["bytes", "path"])
    path = write(pa.table({"image": image, "label": images["label"]}), tmp_path / f"a{suffix}")
    line = complaint(read_source, DataConfig(path=path))
    assert line.startswith(
        f"data.path: column 'image.path' of {path!r} is of the extension type 'ray.data.arrow_pickled_object'"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("wrap", ["bare", "list", "struct of list", "dictionary"])
def test_a_pickle_is_refused_wherever_it_is_nested(tmp_path, images, payload, wrap, suffix):
    offsets, pickles = pa.array(range(13), pa.int32()), payload(12)
    column = {
        "bare": lambda: pickles,
        "list": lambda: pa.ListArray.from_arrays(offsets, pickles),
        "struct of list": lambda: pa.StructArray.from_arrays([pa.ListArray.from_arrays(offsets, pickles)], ["deep"]),
        "dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array(range(12), pa.int32()), pickles),
    }[wrap]()
    table = pa.table({**images, "more": column})
    try:
        path = write(table, tmp_path / f"a{suffix}")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pytest.skip("this format cannot hold such a column")
    assert "'ray.data.arrow_pickled_object'" in complaint(read_source, DataConfig(path=path))


def test_a_table_is_refused_also_where_nobody_has_registered_the_type_of_its_column(tmp_path, images):
    notes = {"ARROW:extension:name": "some.body", "ARROW:extension:metadata": ""}
    odd = pa.field("odd", pa.struct([pa.field("inner", pa.binary(), metadata=notes)]))
    columns = [*images.values(), [{"inner": b""}] * 12]
    table = pa.table(columns, schema=pa.schema([("image", pa.binary()), ("label", pa.string()), odd]))
    path = write(table, tmp_path / "a.parquet")
    assert "column 'odd.inner'" in complaint(read_source, DataConfig(path=path))


def test_types_of_arrow_itself_are_plain_values(tmp_path, images):
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 12, pa.binary(16)))
    path = write(pa.table({**images, "id": uuids}), tmp_path / "a.parquet")
    assert len(read_source(DataConfig(path=path)).samples) == 12


def test_what_a_registered_type_makes_of_malformed_notes_is_one_line(tmp_path, images):
    import ray.data.extensions  # noqa: F401 - registers its tensors

    notes = {"ARROW:extension:name": "ray.data.arrow_tensor_v2", "ARROW:extension:metadata": "{"}
    odd = pa.field("odd", pa.list_(pa.int8()), metadata=notes)
    schema = pa.schema([("image", pa.binary()), ("label", pa.string()), odd])
    path = write(pa.table([*images.values(), [[1]] * 12], schema=schema), tmp_path / "a.parquet")
    complaint(read_source, DataConfig(path=path))


def test_class_names_that_are_no_json_are_one_line(tmp_path, images):
    table = pa.table({"image": images["image"], "label": [0, 1] * 6})
    for number, text in enumerate((b"{", b"[" * 100_000, b"\xff")):
        path = write(table.replace_schema_metadata({"huggingface": text}), tmp_path / f"{number}.parquet")
        assert complaint(read_source, DataConfig(path=path)).startswith("data.path: ")


def test_an_image_without_a_value_is_a_bad_image_and_no_row_of_its_neighbours(tmp_path, images):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": "/etc/hostname"} for data in images["image"]]
    rows[3], rows[4] = None, {"bytes": None, "path": "/etc/hostname"}
    table = pa.table({"image": pa.array(rows, kind), "label": images["label"]})
    samples = read_source(DataConfig(path=write(table, tmp_path / "a.parquet"))).samples
    for row in (3, 4):
        with pytest.raises(OSError, match=f"row {row} holds no image"):
            samples[row].read_bytes()
    assert samples[5].read_bytes() == images["image"][5]


@pytest.mark.parametrize("offset", [60_000, 200_000_000, -5])
@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_an_offset_out_of_the_file_is_one_line_rather_than_a_crash(tmp_path, suffix, offset):
    table = pa.table({"image": [b"x" * 1000] * 12, "label": ["a", "b"] * 6})
    path = Path(write(table, tmp_path / f"a{suffix}"))
    data = path.read_bytes()
    there = struct.pack("<ii", 2000, 3000)
    assert data.count(there) == 1
    path.write_bytes(data.replace(there, struct.pack("<ii", offset, 3000)))
    samples = read_source(DataConfig(path=str(path))).samples
    assert "cannot be read to its end" in complaint(samples[1].read_bytes)


def test_a_list_of_splits_runs_nothing(tmp_path, payload):
    numbers = pa.array(range(6), pa.uint64())
    for columns in ({"sample_id": payload(6), "split": ["train"] * 6}, {"sample_id": numbers, "split": payload(6)}):
        path = write(pa.table(columns), tmp_path / "kept.parquet")
        ask = {"groups": ["a"] * 6, "sample_ids": range(6), "names": ("train", "val", "test")}
        assert complaint(known_splits, path, **ask).startswith("data.keep_splits: column ")


def test_a_list_of_splits_may_be_written_by_other_programs(tmp_path):
    splits = pa.array(["train", "test"], pa.large_string()).dictionary_encode()
    path = write(pa.table({"split": splits, "sample_id": pa.array([1, 2], pa.int64())}), tmp_path / "kept.parquet")
    ask = {"groups": ["a", "b"], "sample_ids": [1, 2], "names": ("train", "val", "test")}
    assert known_splits(path, **ask) == {"a": "train", "b": "test"}


def test_a_data_version_runs_nothing(tmp_path, payload):
    path = write(pa.table({"sample_id": pa.array(range(2), pa.uint64()), "label": payload(2)}), tmp_path / "v.parquet")
    assert complaint(versions.read_version, Path(path)).startswith("data version: column 'label'")
    Path(path).write_bytes(b"PAR1")
    assert complaint(versions.read_version, Path(path)).startswith(f"data version: {path!r} cannot be read")


def test_an_inventory_of_another_kind_is_as_none(tmp_path, images, payload):
    source = read_source(DataConfig(path=write(pa.table(images), tmp_path / "a.parquet")))
    os.utime(tmp_path / "a.parquet", (1, 1))
    cache = Path(write(pa.table({"image": payload(2), "digest": payload(2)}), tmp_path / "inventory.parquet"))
    assert inventory.take_inventory(source, cache=cache).num_read == 12
    assert inventory.take_inventory(source, cache=cache).num_read == 0


@pytest.mark.parametrize("column", ["name", "label", "image"])
def test_a_planted_pack_runs_nothing(tmp_path, images, spec, payload, cache, column):
    config = DataConfig(path=write(pa.table(images), tmp_path / "a.parquet"), cache=cache)
    path = open_pack(config, spec).path
    table = load_own(path, schema=pack_builder.SCHEMA)
    notes = table.schema.metadata
    index = table.column_names.index(column)
    table = table.set_column(index, column, payload(12)).replace_schema_metadata(notes)
    with pa.ipc.new_file(tmp_path / "planted", table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "planted").replace(path)
    for ask in (lambda: open_pack(config, spec), lambda: Pack(path)):
        assert re.match(r"data.cache: '.*' is no whole pack \(.* other columns .*\); delete it$", complaint(ask))


def test_a_pack_of_other_images_than_its_name_says_is_refused(tmp_path, images, spec, cache):
    config = DataConfig(path=write(pa.table(images), tmp_path / "a.parquet"), cache=cache)
    first = open_pack(config, spec).path
    other = DataConfig(path=write(pa.table(images).slice(2), tmp_path / "b.parquet"), cache=cache)
    open_pack(other, spec).path.replace(first)
    assert "of other images than its name says" in complaint(open_pack, config, spec)


@pytest.mark.parametrize("name", ["../planted.arrow", "sub/planted.arrow", "planted.arrow", "", "\0", "/dev/zero"])
def test_an_index_that_leads_elsewhere_is_as_none(tmp_path, images, spec, cache, name):
    config = DataConfig(path=write(pa.table(images), tmp_path / "a.parquet"), cache=cache)
    path = open_pack(config, spec).path
    for place in (tmp_path / "planted.arrow", path.with_name("planted.arrow"), path.parent / "sub" / "planted.arrow"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    next(Path(cache).glob("*.index")).write_text(name)
    assert open_pack(config, spec).path == path
    assert next(Path(cache).glob("*.index")).read_text() == path.name


def test_a_pack_whose_offsets_lead_out_of_it_is_one_line(tmp_path, images, spec, cache):
    config = DataConfig(path=write(pa.table(images), tmp_path / "a.parquet"), cache=cache)
    path = open_pack(config, spec).path
    lengths = [len(f"a.parquet:{row}") for row in range(12)]
    data = path.read_bytes()
    names = [row.as_py() for row in load_own(path, schema=pack_builder.SCHEMA)["name"]]
    ends = [sum(len(name) for name in names[: number + 1]) for number in range(12)]
    there = struct.pack("<12i", *ends)
    assert data.count(there) == 1, lengths
    path.write_bytes(data.replace(there, struct.pack("<12i", *ends[:-2], 200_000_000, ends[-1])))
    assert "is no whole pack" in complaint(Pack, path)


def test_the_columns_of_a_table_are_those_asked_for(tmp_path, images):
    for suffix in SUFFIXES:
        path = write(pa.table(images), tmp_path / f"a{suffix}")
        assert foreign_schema(path).names == ["image", "label"]
        assert load_foreign(path, ["label"]).column_names == ["label"]
        assert load_foreign(path).num_columns == 2
    listed = load_listed(tmp_path / "a.parquet", schema=pa.schema({"label": pa.large_string()}), field="data.path")
    assert listed.schema == pa.schema({"label": pa.large_string()})
