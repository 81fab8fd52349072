"""Taking stock of a data set reads an image again exactly when it may have changed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from trainable.config.trial import DataConfig
from trainable.data.fingerprint import NO_IMAGE, content_fingerprint
from trainable.data.inventory import take_inventory
from trainable.data.readers.read import read_source

ROOT = Path(__file__).parents[3]
LONG_AGO = 1_600_000_000_000_000_000  # nanoseconds since 1970


def age(folder):
    """Date every file to long ago, each to a time of its own."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, ns=(LONG_AGO + number, LONG_AGO + number))


@pytest.fixture
def root(copied_cells):
    """Eight photographs of solar cells in two class folders."""
    age(copied_cells)
    return copied_cells


@pytest.fixture
def stock(tmp_path):
    """Takes the inventory of a data set, always with the same cache."""

    def take(path, **fields):
        return take_inventory(
            read_source(DataConfig(path=str(path), **fields)), cache=tmp_path / "stock" / "cells.parquet"
        )

    return take


def first_of(root, label="whole"):
    return min((root / label).iterdir())


def rewrite(path, data):
    """Other bytes under the same date."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_inventory_has_the_digest_of_every_image_and_the_fingerprint_of_all(root, stock):
    found = stock(root)
    assert found.digests == [blake3((root / sample.name).read_bytes()).digest() for sample in found.source.samples]
    assert found.fingerprint == content_fingerprint(found.source)
    assert found.num_read == 8


def test_a_second_inventory_reads_nothing(root, stock):
    first, second = stock(root), stock(root)
    assert second.num_read == 0
    assert (second.digests, second.fingerprint) == (first.digests, first.fingerprint)


def test_images_known_by_name_size_and_date_are_really_not_read(root, stock):
    first = stock(root)
    path = first_of(root)
    rewrite(path, b"x" * path.stat().st_size)
    assert stock(root).fingerprint == first.fingerprint


def test_only_new_images_are_read_and_removed_ones_are_forgotten(root, stock, cells, tmp_path):
    first = stock(root)
    gone = first_of(root)
    data, status = gone.read_bytes(), gone.stat()
    gone.unlink()
    shutil.copy(cells[8], root / "whole" / "new.png")
    second = stock(root)
    assert second.num_read == 1
    assert second.fingerprint != first.fingerprint
    (root / "whole" / "new.png").unlink()
    gone.write_bytes(data)
    os.utime(gone, ns=(status.st_atime_ns, status.st_mtime_ns))
    third = stock(root)
    assert third.num_read == 1
    assert third.fingerprint == first.fingerprint
    assert pq.read_metadata(tmp_path / "stock" / "cells.parquet").num_rows == 8


def test_a_touched_a_renamed_and_a_rewritten_image_are_read_and_are_the_same(root, stock):
    first = stock(root)
    touched, renamed, rewritten = sorted((root / "whole").iterdir())[:3]
    os.utime(touched, ns=(1, 1))
    renamed.rename(renamed.with_name("other.png"))
    rewritten.write_bytes(rewritten.read_bytes())
    found = stock(root)
    assert found.num_read == 3
    assert found.fingerprint == first.fingerprint


def test_an_image_that_grew_under_its_date_is_read(root, stock):
    first = stock(root)
    path = first_of(root)
    rewrite(path, path.read_bytes() + b"x")
    found = stock(root)
    assert found.num_read == 1
    assert found.fingerprint != first.fingerprint


def test_an_image_moved_to_another_class_changes_the_fingerprint(root, stock):
    first = stock(root)
    path = first_of(root)
    path.rename(root / "cracked" / path.name)
    found = stock(root)
    assert found.num_read == 1
    assert found.fingerprint != first.fingerprint


@pytest.fixture
def listed(root):
    """The same images in a CSV; called with names whose label is to be `whole`."""

    def write(whole):
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        lines = [f"{name},{'whole' if name in whole else 'cracked'}" for name in names]
        (root / "list.csv").write_text("\n".join(["image,label", *lines, ""]))
        return root / "list.csv"

    return write


def test_a_relabelled_row_changes_the_fingerprint_and_no_image_is_read(root, listed, stock):
    whole = [path.relative_to(root).as_posix() for path in (root / "whole").iterdir()]
    first = stock(listed(whole))
    second = stock(listed(whole[1:]))
    assert second.num_read == 0
    assert second.fingerprint != first.fingerprint
    again = stock(listed(whole))
    assert (again.num_read, again.fingerprint) == (0, first.fingerprint)


def test_the_order_of_rows_changes_nothing(root, listed, stock):
    path = listed([path.relative_to(root).as_posix() for path in (root / "whole").iterdir()])
    first = stock(path)
    head, *lines = path.read_text().splitlines()
    random.Random(0).shuffle(lines)
    path.write_text("\n".join([head, *lines]))
    second = stock(path)
    assert (second.num_read, second.fingerprint) == (0, first.fingerprint)
    assert second.digests != first.digests


def test_other_bytes_of_the_same_size_and_date_are_noticed_where_the_first_had_just_been_written(root, stock):
    path = first_of(root)
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    first = stock(root)
    rewrite(path, path.read_bytes()[:-1] + b"x")
    second = stock(root)
    assert second.num_read == 1
    assert second.fingerprint != first.fingerprint


def test_an_image_just_written_is_kept_once_its_date_has_passed(root, stock):
    path = first_of(root)
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    assert [stock(root).num_read for _ in range(2)] == [8, 1]
    os.utime(path, ns=(now - 3_000_000_000, now - 3_000_000_000))
    assert [stock(root).num_read for _ in range(2)] == [1, 0]


def test_an_image_that_cannot_be_read_is_tried_again(root, stock):
    (root / "whole" / "link.png").symlink_to(root / "nowhere.png")
    found = stock(root)
    assert found.digests.count(NO_IMAGE) == 1
    assert found.fingerprint == content_fingerprint(found.source)
    assert stock(root).num_read == 1
    shutil.copy(first_of(root), root / "nowhere.png")
    assert NO_IMAGE not in stock(root).digests


def test_a_row_without_an_image_is_read_again(root, tmp_path, stock):
    files = sorted(root.rglob("*.png"))
    images = [None, *(file.read_bytes() for file in files[1:])]
    pq.write_table(
        pa.table({"image": images, "label": [file.parent.name for file in files]}), tmp_path / "cells.parquet"
    )
    age(tmp_path)
    for num_read in (8, 1):
        found = stock(tmp_path / "cells.parquet")
        assert (found.digests.count(NO_IMAGE), found.num_read) == (1, num_read)


@pytest.mark.parametrize("break_it", ["cut", "text", "foreign", "other version", "changed"])
def test_a_broken_cache_is_replaced(root, stock, tmp_path, break_it):
    first = stock(root)
    cache = tmp_path / "stock" / "cells.parquet"
    data = cache.read_bytes()
    if break_it == "cut":
        cache.write_bytes(data[: len(data) // 2])
    elif break_it == "text":
        cache.write_text("no table")
    elif break_it == "foreign":
        table = pq.read_table(cache)
        pq.write_table(table.drop(["digest"]), cache)
    elif break_it == "other version":
        table = pq.read_table(cache)
        zeros = pa.array([bytes(32)] * 8, pa.binary(32))
        pq.write_table(table.set_column(1, "digest", zeros).replace_schema_metadata({"version": "0"}), cache)
    else:
        at = data.index(first.digests[3])
        cache.write_bytes(data[:at] + b"?" * 32 + data[at + 32 :])
    found = stock(root)
    assert (found.num_read, found.fingerprint) == (8, first.fingerprint)
    assert stock(root).num_read == 0


KILL_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from trainable.config.trial import DataConfig
from trainable.data.inventory import take_inventory
from trainable.data.readers.read import read_source
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # the last call before the file takes its place
take_inventory(read_source(DataConfig(path=sys.argv[1])), cache=Path(sys.argv[2]))
"""


def test_a_process_killed_while_it_writes_leaves_the_old_cache(root, stock, tmp_path, cells):
    stock(root)
    cache = tmp_path / "stock" / "cells.parquet"
    before = cache.read_bytes()
    shutil.copy(cells[8], root / "whole" / "new.png")
    os.utime(root / "whole" / "new.png", ns=(1, 1))
    command = [sys.executable, "-c", KILL_WHILE_WRITING, str(root), str(cache)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list(cache.parent.glob("cells.parquet.*.tmp"))) == 1
    assert cache.read_bytes() == before
    assert stock(root).num_read == 1
    assert sorted(path.name for path in cache.parent.iterdir()) == ["cells.parquet"]


def test_a_relative_path_is_another_data_set_in_another_folder(root, tmp_path, monkeypatch):
    other = tmp_path / "other" / "cells"
    shutil.copytree(root, other)  # with all dates
    path = first_of(other)
    rewrite(path, b"x" * path.stat().st_size)
    found = []
    for folder in (tmp_path, tmp_path / "other"):
        monkeypatch.chdir(folder)
        found.append(take_inventory(read_source(DataConfig(path="cells")), cache=tmp_path / "stock.parquet"))
    assert found[1].num_read == 8
    assert found[0].fingerprint != found[1].fingerprint


@pytest.mark.parametrize("oracle", [False, True])
def test_labels_of_a_target_count_for_an_oracle_alone_and_are_not_in_the_cache(root, tmp_path, cells, oracle):
    for number, cell in enumerate(cells[8:12]):
        folder = tmp_path / "poly" / ("cracked" if number % 2 else "whole")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(cell, folder / cell.name)
    config = DataConfig(source=[str(root)], target=str(tmp_path / "poly"), oracle=oracle)
    cache = tmp_path / "stock.parquet"
    first = take_inventory(read_source(config), cache=cache)
    path = first_of(tmp_path / "poly")
    path.rename(tmp_path / "poly" / "cracked" / path.name)
    second = take_inventory(read_source(config), cache=cache)
    assert (second.fingerprint == first.fingerprint) is not oracle
    assert len(first.digests) == 12
    assert not any(word in cache.read_bytes() for word in (b"cracked", b"whole", b"poly"))


def test_rows_of_a_table_in_another_order_are_the_same_images(root, tmp_path, stock):
    files = sorted(root.rglob("*.png"))
    random.Random(0).shuffle(files)
    found = []
    for order in (sorted(files), files):
        rows = {"image": [file.read_bytes() for file in order], "label": [file.parent.name for file in order]}
        pq.write_table(pa.table(rows), tmp_path / "cells.parquet")
        found.append(stock(tmp_path / "cells.parquet"))
    assert found[0].digests != found[1].digests
    assert found[0].fingerprint == found[1].fingerprint == stock(root).fingerprint


def test_a_table_that_has_not_changed_is_not_read(root, tmp_path, stock):
    files = sorted(root.rglob("*.png"))
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, some in {"a": files[:4], "b": files[4:]}.items():
        rows = {"image": [file.read_bytes() for file in some], "label": [file.parent.name for file in some]}
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    age(folder)
    first = stock(folder)
    assert stock(folder).num_read == 0
    os.utime(folder / "b.parquet", ns=(1, 1))
    found = stock(folder)
    assert (found.num_read, found.fingerprint) == (4, first.fingerprint)
