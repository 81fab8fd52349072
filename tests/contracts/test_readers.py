"""What every reader keeps: the same images, whatever they lie in, are the same samples."""

import importlib
import io
import sys
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainable.config.trial import DataConfig
from trainable.data.pack import open_pack
from trainable.data.readers.read import READERS, data_format, read_source
from trainable.errors import UserError

LABELS = ["defective", "functional", "functional", "defective", "functional", "defective", "functional"]
SPLITS = ["train", "train", "val", "val", "test", "test", "train"]


def png(number):
    """One image of its own, encoded."""
    file = io.BytesIO()
    Image.effect_mandelbrot((24, 20 + number), (-2, -1.5, 1, 1.5), 4 + number).convert("RGB").save(file, "PNG")
    return file.getvalue()


def write_folder(root, *, labels, splits):
    for number, label in enumerate(labels):
        above = root / (splits[number] if splits else "") / label
        above.mkdir(parents=True, exist_ok=True)
        (above / f"{number}.png").write_bytes(png(number))
    return DataConfig(path=str(root))


def write_manifest(root, *, labels, splits):
    for number in range(len(labels)):
        (root / f"{number}.png").write_bytes(png(number))
    columns = ["image,label,split", *(f"{n}.png,{label},{splits and splits[n]}" for n, label in enumerate(labels))]
    (root / "list.csv").write_text("\n".join(columns if splits else [row.rpartition(",")[0] for row in columns]) + "\n")
    return DataConfig(path=str(root / "list.csv"))


def write_table(root, *, labels, splits):
    columns = {"image": [png(number) for number in range(len(labels))], "label": labels}
    pq.write_table(pa.table(columns | ({"split": splits} if splits else {})), root / "table.parquet")
    return DataConfig(path=str(root / "table.parquet"))


def write_elpv(root, *, labels, splits):
    """A package of the same name and layout, found before the installed one."""
    if splits:
        pytest.skip("the package gives no splits")
    data = root / "elpv_dataset" / "data"
    data.mkdir(parents=True)
    (root / "elpv_dataset" / "__init__.py").touch()
    for number in range(len(labels)):
        (data / f"{number}.png").write_bytes(png(number))
    lines = [f"{number}.png {float(label == 'defective')} mono" for number, label in enumerate(labels)]
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    return DataConfig(format="elpv")


WRITERS = {"folder": write_folder, "manifest": write_manifest, "table": write_table, "elpv": write_elpv}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that lays the images out for a reader and gives the configuration that reads them."""

    def write(name, *, labels=LABELS, splits=None):
        root = tmp_path / name
        root.mkdir()
        monkeypatch.syspath_prepend(root)
        monkeypatch.delitem(
            sys.modules, "elpv_dataset", raising=False
        )  # the installed one, which another test may have imported
        importlib.invalidate_caches()
        return WRITERS[name](root, labels=labels, splits=splits)

    return write


def complaint(config):
    with pytest.raises(UserError) as caught:
        read_source(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_those_that_can_be_asked_for_are_those_there_are():
    assert set(get_args(DataConfig.model_fields["format"].annotation)) == {"auto", *READERS}


@pytest.mark.parametrize("name", READERS)
def test_every_image_is_one_sample_with_its_bytes_and_its_label(name, written):
    config = written(name)
    assert data_format(config) == name
    source = read_source(config)
    assert source.classes == ("defective", "functional")
    assert source.given_splits == ()
    found = {sample.read_bytes(): sample.label for sample in source.samples}
    assert found == {png(number): label for number, label in enumerate(LABELS)}
    assert len(source.samples) == len({sample.name for sample in source.samples}) == len(LABELS)


@pytest.mark.parametrize("name", READERS)
def test_given_splits_are_kept(name, written):
    source = read_source(written(name, splits=SPLITS))
    found = {sample.read_bytes(): (sample.label, sample.split) for sample in source.samples}
    assert found == {png(n): (label, split) for n, (label, split) in enumerate(zip(LABELS, SPLITS, strict=True))}


@pytest.mark.parametrize("name", READERS)
def test_it_is_the_same_data_as_through_a_folder(name, written, cache, spec):
    config = written(name)
    plain = config if name == "folder" else written("folder")
    pack, folder = (open_pack(one.model_copy(update={"cache": cache}), spec) for one in (config, plain))
    assert pack.fingerprint == folder.fingerprint
    assert pack.counts() == folder.counts()


@pytest.mark.parametrize("name", READERS)
def test_the_files_whose_change_means_another_data_set_are_there(name, written):
    source = read_source(written(name))
    assert {sample.file for sample in source.samples} <= set(source.files)
    assert all(Path(file).is_file() for file in source.files)


@pytest.mark.parametrize("name", READERS)
def test_a_single_class_is_refused_in_one_line(name, written):
    assert "'functional' is the only class; a classifier needs two" in complaint(
        written(name, labels=["functional"] * 3)
    )


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_there_is_refused_in_one_line(name, written, tmp_path):
    config = written(name)
    Path(config.path or tmp_path / "elpv/elpv_dataset/data/labels.csv").rename(tmp_path / "elsewhere")
    assert complaint(config).startswith("data.")
