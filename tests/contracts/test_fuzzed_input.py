"""Whatever bytes stand in a file that others may have written, it is read or refused in words of ours.

FUZZ=1000 tries a thousand of each kind, half of them whole files with some bytes changed.
"""

import io
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search.ledger.ledger import NoSearchError
from search.ledger.stored import open_ledger
from search.space.loading import load
from trainable.config.trial import DataConfig
from trainable.data.decode import BadImageError, decode
from trainable.data.readers.read import read_source
from trainable.errors import OutageError, UserError

EXAMPLES = int(os.environ.get("FUZZ", "40"))
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
OURS = (UserError, OutageError)


@st.composite
def changed(draw, whole):
    """A whole file with a few bytes changed, left out or put in, or cut short; or any bytes at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=400))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        where = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "leave out", "put in", "cut", "repeat"]))
        if kind == "change" and content:
            content[where] = draw(st.integers(0, 255))
        elif kind == "leave out":
            del content[where : where + draw(st.integers(1, 9))]
        elif kind == "put in":
            content[where:where] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "cut":
            del content[where:]
        else:
            content[where:where] = content[where : where + 40]
    return bytes(content)


SPACE = yaml.safe_dump(
    {
        "search": {"name": "cells", "trials": 6, "budget": {"minutes": 5}},
        "scheduler": {"min_epochs": 1, "max_epochs": 4, "reduction": 2},
        "base": {"data": {"path": "images"}, "model": {"name": "resnet18", "weights": "random"}},
        "vary": {
            "optimizer.lr": {"log": [1e-4, 1e-1], "prior": 1e-3, "confidence": "low"},
            "model.head": {"choice": ["linear", "mlp"]},
            "model.head_hidden": {"int": [16, 64], "when": {"model.head": "mlp"}},
        },
        "try_first": [{"optimizer.lr": 0.01}],
    }
).encode()


@FUZZED
@given(content=changed(SPACE))
def test_a_space_file(tmp_path, content):
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with suppress(*OURS):
        load(path, ())


LIST = b"image,label,split,group\na.png,crack,train,1\nb.png,fine,val,2\nc.png,fine,test,3\nd.png,crack,test,4\n"


@FUZZED
@given(content=changed(LIST))
def test_a_list_of_images(tmp_path, content):
    for name in "abcd":
        if not (tmp_path / f"{name}.png").is_file():
            Image.new("L", (8, 8), ord(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "images.csv").write_bytes(content)
    with suppress(*OURS):
        read_source(DataConfig(path=str(tmp_path / "images.csv"), group_column="group"))


def encoded(kind):
    file = io.BytesIO()
    Image.effect_noise((24, 18), 60).convert("RGB").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_an_image(kind):
    @FUZZED
    @given(content=changed(encoded(kind)))
    def look(content):
        with suppress(BadImageError):
            assert decode(content, channels=3, side=16, interpolation="bilinear").shape[2] == 3

    look()


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The folder of a search of some years, as a version before this one left it."""
    folder = tmp_path_factory.mktemp("search") / "cells"
    shutil.copytree(Path(__file__).parents[1] / "integration/begun_before", folder)
    return folder


@pytest.mark.parametrize("name", ["ledger.journal", "search.json"])
def test_the_folder_of_a_search(search, tmp_path_factory, name):
    whole = (search / name).read_bytes()
    lines = whole.splitlines(keepends=True)
    some = b"".join(lines[:12]) if name == "ledger.journal" else whole

    @FUZZED
    @given(content=changed(some))
    def look(content):
        (search / name).write_bytes(content)
        with suppress(*OURS, NoSearchError):
            _, ledger = open_ledger(search)
            ledger.trials()
            assert ledger.notes is not None

    try:
        look()
    finally:
        (search / name).write_bytes(whole)


def test_the_description_of_a_package(tmp_path):
    from trainable.training.teacher import read_description

    whole = json.dumps({"classes": ["a", "b"], "config": {"model": {"name": "test_resnet"}}, "finish": {"views": []}})

    @FUZZED
    @given(content=changed(whole.encode()))
    def look(content):
        (tmp_path / "model.json").write_bytes(content)
        with suppress(*OURS):
            read_description(tmp_path)

    look()
