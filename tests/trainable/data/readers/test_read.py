import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from trainable.config.trial import DataConfig
from trainable.data.readers.read import read_source
from trainable.errors import UserError


def complaint(config):
    """The one line that a user reads."""
    with pytest.raises(UserError) as caught:
        read_source(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rows(source):
    return sorted((sample.name, sample.label, sample.split) for sample in source.samples)


def test_given_splits_are_read_from_folders_whatever_val_is_called(draw_folder):
    for name in ("val", "valid", "validation"):
        root = draw_folder({"train/cat": 2, "train/dog": 1, f"{name}/cat": 1, f"{name}/dog": 1})
        draw_folder({"test/cat": 1, "test/dog": 1})
        source = read_source(DataConfig(path=str(root)))
        assert source.classes == ("cat", "dog")
        assert rows(source) == sorted(
            [
                ("train/cat/0.png", "cat", "train"),
                ("train/cat/1.png", "cat", "train"),
                ("train/dog/0.png", "dog", "train"),
                (f"{name}/cat/0.png", "cat", "val"),
                (f"{name}/dog/0.png", "dog", "val"),
                ("test/cat/0.png", "cat", "test"),
                ("test/dog/0.png", "dog", "test"),
            ]
        )
        shutil.rmtree(root)


def test_samples_come_in_the_order_of_their_folders_and_names(draw_folder):
    root = draw_folder({"a/b": 1, "a/b-c": 1, "a/a": 1, "a": 2, "a-b": 1})
    assert [sample.name for sample in read_source(DataConfig(path=str(root))).samples] == [
        "a/0.png",
        "a/1.png",
        "a/a/0.png",
        "a/b/0.png",
        "a/b-c/0.png",
        "a-b/0.png",
    ]


def test_class_folders_alone_give_no_split(draw_folder):
    root = draw_folder({"cat": 2, "dog": 1})
    assert rows(read_source(DataConfig(path=str(root)))) == [
        ("cat/0.png", "cat", None),
        ("cat/1.png", "cat", None),
        ("dog/0.png", "dog", None),
    ]


def test_a_class_may_be_called_train(draw_folder):
    source = read_source(DataConfig(path=str(draw_folder({"train": 1, "tram": 1}))))
    assert source.classes == ("train", "tram")
    assert source.given_splits == ()


def test_hidden_files_are_ignored_while_nested_and_linked_folders_are_followed(draw_folder, draw_image, tmp_path):
    root = draw_folder({"cat/deep/deeper": 1, "dog": 1})
    draw_image(root / "cat" / ".hidden.png", number=90)
    draw_image(root / "cat" / ".thumbnails" / "0.png", number=91)
    draw_image(root / ".cache" / "0.png", number=92)
    (root / "dog" / "notes.txt").write_text("no image")
    draw_image(tmp_path / "elsewhere" / "bird.png", number=93)
    draw_image(tmp_path / "far" / "dog.png", number=94)
    (root / "bird").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "dog" / "more").symlink_to(tmp_path / "far", target_is_directory=True)
    names = [name for name, _, _ in rows(read_source(DataConfig(path=str(root))))]
    assert names == ["bird/bird.png", "cat/deep/deeper/0.png", "dog/0.png", "dog/more/dog.png"]


def test_a_sample_reads_the_bytes_of_its_own_file(draw_folder):
    root = draw_folder({"cat": 2, "dog": 2})
    for sample in read_source(DataConfig(path=str(root))).samples:
        assert sample.read_bytes() == (root / sample.name).read_bytes()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 0, "dog": 0}, "data.path: {root!r} has no images; images end in .jpg"),
        ({"cat": 0, "dog": 1}, "data.path: 'dog' is the only class; a classifier needs two"),
        ({"cat": 1}, "data.path: 'cat' is the only class; a classifier needs two"),
        ({}, "data.path: {root!r} has no class folders"),
        (
            {"train/cat": 1, "train/dog": 1, "tset/cat": 1},
            "data.path: 'tset' is no split, expected train, val or test; did you mean 'test'?",
        ),
        (
            {"train/cat": 1, "train/dog": 1, "val/cat": 1, "valid/cat": 1},
            "data.path: folders 'val' and 'valid' both mean val",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(draw_folder, tmp_path, counts, message):
    (tmp_path / "images").mkdir()
    root = draw_folder(counts)
    assert complaint(DataConfig(path=str(root))).startswith(message.format(root=str(root)))


def test_a_missing_path_is_named_with_its_nearest_neighbour(draw_folder):
    root = draw_folder({"cat": 1, "dog": 1})
    wrong = str(root.with_name("imagse"))
    assert complaint(DataConfig(path=wrong)) == f"data.path: {wrong!r} does not exist; did you mean {str(root)!r}?"
    assert complaint(DataConfig(path="/nope")) == "data.path: '/nope' does not exist"  # /opt is no nearer for its slash
    assert complaint(DataConfig()).startswith("data.path: is empty")


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "data.xlsx").write_text("?")
    assert "is neither a folder nor one of .csv, .tsv, .parquet" in complaint(
        DataConfig(path=str(tmp_path / "data.xlsx"))
    )
    assert "reads a folder" in complaint(DataConfig(path=str(tmp_path / "data.xlsx"), format="folder"))


@pytest.fixture
def manifest(draw_folder):
    """Writes the rows as a CSV beside three images, `0.png` to `2.png` in `x`."""
    root = draw_folder({"x": 3})

    def write(text):
        (root / "list.csv").write_text(text)
        return str(root / "list.csv")

    return write


def test_a_manifest_gives_labels_splits_groups_and_domains_as_text(manifest):
    path = manifest(
        "file,kind,part,object,site\n"
        "x/0.png,01,train,7,north\nx/1.png,1,validation,,\nx/2.png,1,train,8,south\nx/0.png,01,val,,north\n"
    )
    config = DataConfig(
        path=path,
        image_column="file",
        label_column="kind",
        split_column="part",
        group_column="object",
        domain_column="site",
    )
    source = read_source(config)
    assert source.classes == ("01", "1")
    assert [(s.name, s.label, s.split, s.group, s.domain) for s in source.samples] == [
        ("x/0.png", "01", "train", "7", "north"),
        ("x/1.png", "1", "val", None, None),
        ("x/2.png", "1", "train", "8", "south"),
        ("x/0.png", "01", "val", None, "north"),
    ]


def test_a_manifest_takes_absolute_paths_and_parquet(draw_folder):
    root = draw_folder({"x": 2})
    table = pa.table({"image": [str(root / "x" / "0.png"), "x/1.png"], "label": [3, 12]})
    pq.write_table(table, root / "list.parquet")
    source = read_source(DataConfig(path=str(root / "list.parquet")))
    assert source.classes == ("12", "3")
    assert [s.read_bytes() for s in source.samples] == [(root / "x" / f"{n}.png").read_bytes() for n in (0, 1)]


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("image,lable\nx/0.png,a\n", {}, "data.label_column: there is no column 'label'; did you mean 'lable'?"),
        ("img,label\nx/0.png,a\n", {}, "data.image_column: there is no column 'image'; did you mean 'img'?"),
        (
            "image,label\nx/0.png,a\n",
            {"group_column": "cell"},
            "data.group_column: there is no column 'cell', there are image, label",
        ),
        (
            "image,label,split\nx/0.png,a,train\n",
            {"split_column": "splits"},
            "data.split_column: there is no column 'splits'; did you mean 'split'?",
        ),
        (
            "image,label\nx/0.png,a\nx/1.png,\nx/2.png,\n",
            {},
            "data.label_column: 2 of 3 rows have no label, the first is row 1; leave those rows out",
        ),
        (
            "image,label,split\nx/0.png,a,train\nx/1.png,b,tain\n",
            {},
            "data.split_column: 'tain' is no split, expected train, val or test; did you mean 'train'?",
        ),
        (
            "image,label\nx/0.png,a\nx/8.png,b\nx/9.png,b\n",
            {},
            "data.path: 2 of 3 images cannot be read, the first is 'x/8.png'",
        ),
        ("image,label\n", {}, "data.path: there are no images"),
        (
            "image,label,split\nx/0.png,a,val\nx/1.png,b,test\n",
            {},
            "data.path: there is val and test but no train",
        ),
        (
            "image,label,split,cell\nx/0.png,a,train,7\nx/1.png,b,train,\nx/2.png,a,val,7\nx/1.png,b,val,\n",
            {"group_column": "cell"},
            "data.group_column: group '7' is in train and val; groups in several splits: 1",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_clear_line(manifest, text, fields, message):
    assert complaint(DataConfig(path=manifest(text), **fields)).startswith(message)


def test_a_ragged_csv_is_one_clear_line(manifest):
    assert "cannot be read" in complaint(DataConfig(path=manifest("image,label\nx/0.png,a\nx/1.png\n")))


BYTES = [b"one", b"two", b"three"]


def write_arrow_file(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_arrow_stream(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("table.parquet", pq.write_table),
        ("table.feather", pyarrow.feather.write_feather),
        ("table.arrow", write_arrow_file),
        ("table.arrow", write_arrow_stream),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_table_gives_the_encoded_images_of_its_rows(tmp_path, name, write, wrapped):
    images = [{"bytes": data, "path": "a.png"} for data in BYTES] if wrapped else BYTES
    write(pa.table({"image": images, "label": ["b", "a", "b"]}), tmp_path / name)
    source = read_source(DataConfig(path=str(tmp_path / name)))
    assert source.classes == ("a", "b")
    assert [(s.name, s.label, s.read_bytes()) for s in source.samples] == [
        (f"{name}:{row}", label, data) for row, (label, data) in enumerate(zip("bab", BYTES, strict=True))
    ]


def list_notes(tmp_path, text, **fields):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text(text)
    source = read_source(DataConfig(path=str(tmp_path / "list.csv"), **fields))
    return [finding.line() for finding in source.findings]


def test_words_for_nothing_are_labels_and_groups_and_said(tmp_path):
    text = "image,label,patient\n0.png,cat,NaN\n1.png,None,a\n2.png,dog,NaN\n3.png,dog,NaN\n"
    assert list_notes(tmp_path, text) == [
        "data.label_column: 'None' stands in 1 row and was taken for a class; leave the cells empty, or the rows out, if it "
        "means nothing"
    ]
    assert list_notes(tmp_path, text.replace("None", "cat"), group_column="patient")[0].startswith(
        "data.group_column: 'NaN' stands in 3 rows and was taken for one group; "
    )
    assert list_notes(tmp_path, text.replace("None", "nonesuch")) == []
    with pytest.raises(UserError, match="1 of 4 rows have no label, the first is row 1"):
        list_notes(tmp_path, text.replace("None", "  "))


def test_numbers_that_are_none_are_no_labels(tmp_path):
    (tmp_path / "0.png").write_bytes(b"")
    rows = {"image": ["0.png"] * 3, "label": [0.0, float("nan"), 1.0]}
    pq.write_table(pa.table(rows), tmp_path / "list.parquet")
    assert "1 of 3 rows have no label, the first is row 1" in complaint(DataConfig(path=str(tmp_path / "list.parquet")))


def test_a_folder_of_images_beside_another_table_says_how_it_is_read(draw_folder):
    root = draw_folder({"cat": 2, "dog": 2})
    pq.write_table(pa.table({"x": [1]}), root / "notes.parquet")
    line = complaint(DataConfig(path=str(root)))
    assert line.startswith(
        "data.image_column: there is no column 'image', there are x; the folder was read for its Parquet"
    )
    assert "`data.format: folder` reads its images" in line
    (root / "notes.parquet").write_bytes(b"PAR1")
    assert "`data.format: folder` reads its images" in complaint(DataConfig(path=str(root)))
    assert len(read_source(DataConfig(path=str(root), format="folder")).samples) == 4


def test_a_column_of_splits_that_is_not_used_is_said(tmp_path):
    text = "image,label,{0}\n0.png,cat,train\n1.png,dog,train\n2.png,dog,Test\n3.png,cat,val\n"
    assert list_notes(tmp_path, text.format("subset")) == [
        "column 'subset' names splits and was not used; `data.split_column: subset` takes them"
    ]
    assert list_notes(tmp_path, text.format("subset"), split_column="subset") == []
    assert list_notes(tmp_path, text.format("split")) == []
    assert list_notes(tmp_path, text.format("place").replace("Test", "garden")) == []


def test_dictionary_labels_are_sorted_by_their_text(tmp_path):
    labels = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["zebra", "ape"]))
    pq.write_table(pa.table({"image": BYTES, "label": labels}), tmp_path / "t.parquet")
    source = read_source(DataConfig(path=str(tmp_path / "t.parquet")))
    assert source.classes == ("ape", "zebra")
    assert [s.label for s in source.samples] == ["zebra", "ape", "zebra"]


def test_integer_labels_take_the_names_that_hugging_face_wrote_and_minus_one_is_no_label(tmp_path):
    described = b'{"info": {"features": {"label": {"names": ["healthy", "broken"], "_type": "ClassLabel"}}}}'
    for labels, expected in (([0, 1, 0], ["healthy", "broken", "healthy"]), ([0, 1, -1], None)):
        table = pa.table({"image": BYTES, "label": labels}).replace_schema_metadata({b"huggingface": described})
        pq.write_table(table, tmp_path / "t.parquet")
        config = DataConfig(path=str(tmp_path / "t.parquet"))
        if expected is None:
            assert (
                complaint(config)
                == "data.label_column: 1 of 3 rows have no label, the first is row 2; leave those rows out"
            )
        else:
            assert [s.label for s in read_source(config).samples] == expected


def test_a_folder_of_parquet_files_is_read_with_the_splits_in_their_names(tmp_path):
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        pq.write_table(pa.table({"image": BYTES, "label": ["a", "b", "a"]}), tmp_path / f"{name}.parquet")
    source = read_source(DataConfig(path=str(tmp_path)))
    assert source.counts() == {"train": {"a": 2, "b": 1}, "val": {"a": 2, "b": 1}}


def test_a_folder_of_parquet_files_with_other_names_gives_no_split(tmp_path):
    for name in ("train-0", "part-1"):
        pq.write_table(pa.table({"image": BYTES, "label": ["a", "b", "a"]}), tmp_path / f"{name}.parquet")
    assert read_source(DataConfig(path=str(tmp_path))).given_splits == ()


def test_an_image_column_of_numbers_is_refused(tmp_path):
    pq.write_table(pa.table({"image": [1, 2], "label": ["a", "b"]}), tmp_path / "t.parquet")
    message = complaint(DataConfig(path=str(tmp_path / "t.parquet")))
    assert message == "data.image_column: column 'image' holds int64, expected encoded images"


@pytest.mark.parametrize(("rule", "defective"), [("prob>=0.5", 821), ("prob>0", 1116)])
def test_elpv_has_the_published_numbers_of_defective_cells(rule, defective):
    source = read_source(DataConfig(format="elpv", elpv_rule=rule))
    assert source.classes == ("defective", "functional")
    assert source.counts() == {"all": {"defective": defective, "functional": 2624 - defective}}
    assert {s.domain for s in source.samples} == {"mono", "poly"}


def test_elpv_without_its_package_says_what_to_install():
    code = (
        "from trainable.config.trial import DataConfig\nfrom trainable.data.readers.read import read_source\n"
        "import sys; sys.path.clear()\n"
        "try: read_source(DataConfig(format='elpv'))\nexcept Exception as error: print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "UserError data.format: elpv needs the package elpv-dataset; pip install '.[demo]'\n"


def test_reading_a_source_does_not_load_torch():
    code = "import sys, trainable.data.readers.read, trainable.data.pack; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_labels_are_found_for_a_numpy_image(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "0.npy", np.zeros((4, 4, 5), np.uint8))
    assert [s.name for s in read_source(DataConfig(path=str(tmp_path))).samples] == ["a/0.npy", "b/0.npy"]


@pytest.mark.parametrize("name", ["broken.parquet", "broken.arrow"])
def test_a_table_that_is_no_table_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a table")
    with pytest.raises(UserError, match="is no whole Parquet, Arrow or CSV file") as caught:
        read_source(DataConfig(path=str(tmp_path / name)))
    assert "\n" not in str(caught.value)
