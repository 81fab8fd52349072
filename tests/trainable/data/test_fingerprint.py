import os
import random
from dataclasses import replace

import pytest

from trainable.config.trial import DataConfig
from trainable.data.fingerprint import content_fingerprint, quick_key
from trainable.data.readers.read import read_source


@pytest.fixture
def root(draw_folder):
    return draw_folder({"cat": 3, "dog": 3})


def read(root):
    return read_source(DataConfig(path=str(root)))


def test_renaming_touching_and_reordering_keep_the_fingerprint(root):
    before = content_fingerprint(read(root))
    (root / "cat" / "0.png").rename(root / "cat" / "other.png")
    os.utime(root / "dog" / "1.png", ns=(1, 1))
    source = read(root)
    assert content_fingerprint(source) == before
    shuffled = list(source.samples)
    random.Random(0).shuffle(shuffled)
    assert content_fingerprint(replace(source, samples=tuple(shuffled))) == before
    assert len(before) == 32


def test_relabelling_changing_doubling_and_removing_change_the_fingerprint(root):
    found = [content_fingerprint(read(root))]
    (root / "cat" / "0.png").rename(root / "dog" / "moved.png")
    found.append(content_fingerprint(read(root)))
    (root / "dog" / "copy.png").write_bytes((root / "dog" / "0.png").read_bytes())
    found.append(content_fingerprint(read(root)))
    (root / "dog" / "0.png").write_bytes((root / "cat" / "1.png").read_bytes())
    found.append(content_fingerprint(read(root)))
    (root / "dog" / "1.png").unlink()
    found.append(content_fingerprint(read(root)))
    assert len(set(found)) == 5


def test_swapped_labels_change_the_fingerprint(root):
    before = content_fingerprint(read(root))
    cat, dog = root / "cat" / "0.png", root / "dog" / "0.png"
    data = cat.read_bytes()
    cat.write_bytes(dog.read_bytes())
    dog.write_bytes(data)
    assert content_fingerprint(read(root)) != before


def test_another_given_split_changes_the_fingerprint(root):
    source = read(root)
    first = replace(source.samples[0], split="train")
    assert content_fingerprint(replace(source, samples=(first, *source.samples[1:]))) != content_fingerprint(source)


def test_the_quick_key_follows_names_sizes_dates_and_settings(root):
    found = [quick_key(read(root), settings={"side": 1}), quick_key(read(root), settings={"side": 2})]
    assert quick_key(read(root), settings={"side": 1}) == found[0]
    os.utime(root / "dog" / "1.png", ns=(1, 1))
    found.append(quick_key(read(root), settings={"side": 1}))
    (root / "dog" / "1.png").rename(root / "dog" / "9.png")
    found.append(quick_key(read(root), settings={"side": 1}))
    with (root / "dog" / "9.png").open("ab") as file:
        file.write(b"x")
    os.utime(root / "dog" / "9.png", ns=(1, 1))
    found.append(quick_key(read(root), settings={"side": 1}))
    assert len(set(found)) == 5
