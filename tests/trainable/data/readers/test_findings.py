from pathlib import Path

import pytest

from trainable.config.trial import DataConfig
from trainable.data.readers.findings import KINDS, Finding, counted, only_mistakes

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_finding_is_documented_as_it_is_and_names_keys_that_there_are(name):
    kind = KINDS[name]
    assert set(kind.keys) <= set(DataConfig.model_fields)
    keys = ", ".join(f"`data.{key}`" for key in kind.keys)
    assert f"| `{name}` | {kind.noticed} | {kind.done} | {keys} |\n" in (ROOT / "docs" / "data.md").read_text()


def test_a_line_gives_some_examples_and_the_cure():
    finding = Finding(kind="exif", count=4, text="4 images", examples=("a", "b", "c", "d"), cure="look")
    assert finding.line() == "4 images, such as a, b, c, …; look"
    assert Finding(kind="exif", count=1, text="1 image").line() == "1 image"
    assert finding.as_dict()["line"] == finding.line()


def test_there_are_only_kinds_of_the_table():
    with pytest.raises(AssertionError, match="no kind exit"):
        Finding(kind="exit", count=1, text="")


def test_mistakes_are_those_that_are_marked():
    mistake = Finding(kind="rare", count=1, text="", is_mistake=True)
    assert only_mistakes([mistake, Finding(kind="exif", count=1, text="")]) == [mistake]


def test_nouns_agree_with_their_numbers():
    assert (counted(1, "image"), counted(2, "image"), counted(2, "class", plural="classes")) == (
        "1 image",
        "2 images",
        "2 classes",
    )
