"""The served model: asked as MLflow's clients and its scoring server ask it."""

import base64
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image

from search.tracking.model_files import load, save_model
from trainable.config.trial import TrialConfig
from trainable.serving.package import package
from trainable.training.fit import fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packaged(tmp_path_factory, draw_image):
    root = tmp_path_factory.mktemp("served")
    for label, first in (("cat", 0), ("dog", 20)):
        for index in range(8):
            draw_image(root / "images" / label / f"{index}.png", number=first + index)
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(root / "images"), "image_size": 32, "cache": str(root / "cache")},
            "model": {"name": "resnet10t", "weights": "random"},
            "train": {"epochs": 1, "batch_size": 8},
        }
    )
    for epoch in fit(config):
        epoch.save(root / "checkpoint")
    package(config, folder=root / "package", checkpoint=root / "checkpoint")
    return root / "package"


@pytest.fixture(scope="module")
def model(packaged):
    save_model(packaged, folder=packaged.with_name("model"))
    return load(packaged.with_name("model"))


def test_a_model_of_a_coverage_names_what_is_plausible_and_says_when_it_is_unsure(model, packaged, image, tmp_path):
    description = json.loads((packaged / "model.json").read_text())
    found = model.predict(pd.DataFrame({"image": [image]}))
    assert "unsure" not in found
    plausible = {}
    for least in (0.0, float(found["score"][0]), 1.0):
        unsure = {"coverage": 0.9, "least_probability": least, "num_images": 9}
        folder = tmp_path / str(least)
        shutil.copytree(packaged, folder / "package")
        (folder / "package" / "model.json").write_text(json.dumps(description | {"unsure": unsure}))
        save_model(folder / "package", folder=folder / "model")
        (row,) = load(folder / "model").predict(pd.DataFrame({"image": [image]})).to_dict("records")
        plausible[least] = row["plausible"], row["unsure"]
    assert [*plausible.values()] == [(found["top_k"][0], True), ([found["label"][0]], False), ([], True)]


@pytest.fixture(scope="module")
def image():
    """An image whose base64 has signs that the URL-safe alphabet writes otherwise."""
    for seed in range(50):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40 + seed), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "png")
        text = base64.b64encode(buffer.getvalue()).decode()
        if "+" in text and "/" in text and text.endswith("="):
            return buffer.getvalue()
    raise AssertionError


def post(model, document):
    """What the server answers: its rows, or the sentence of an error."""
    schema = model.metadata.get_input_schema()
    try:
        answer = invocations(json.dumps(document), "application/json", model, schema)
    except MlflowException as error:
        return json.loads(error.serialize_as_json())["message"] if error.get_http_status_code() == 400 else repr(error)
    return json.loads(answer.response)["predictions"]


def ways(value):
    return [
        {"dataframe_split": {"columns": ["image"], "data": [[value]]}},
        {"dataframe_records": [{"image": value}]},
        {"inputs": [value]},
        {"instances": [value]},
        {"instances": [{"image": value}]},
    ]


def texts(image):
    standard, url = base64.b64encode(image).decode(), base64.urlsafe_b64encode(image).decode()
    assert standard != url
    lines = base64.encodebytes(image).decode()
    return [standard, url, url.rstrip("="), lines, f"data:image/png;base64,{standard}", f"data:image/png;base64,{url}"]


def test_bytes_are_taken_alone_in_a_list_and_in_a_table(model, image):
    expected = model.predict(image).to_dict("records")
    text = texts(image)[0]
    for given in (
        [image],
        {"image": [image]},
        pd.DataFrame({"image": [image]}),
        text,
        [text],
        pd.DataFrame({"x": [text]}),
    ):
        assert model.predict(given).to_dict("records") == expected


@pytest.mark.parametrize("number", range(6))
def test_base64_of_any_kind_is_taken_in_every_form_of_request(model, image, number):
    expected = model.predict(image).to_dict("records")
    for document in ways(texts(image)[number]):
        assert post(model, document) == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "image: row 0 is null"),
        ("", "image: row 0 is empty"),
        ("@@@", "image: row 0 is text that is no base64"),
        ("A", "image: row 0 is text that is no base64"),
        (5, "image: row 0 is int, must be bytes, or text in base64"),
        ("QUJD", "image: row 0 cannot be used (not an image)"),
    ],
)
def test_what_is_no_image_is_one_sentence_with_its_row_and_nothing_of_what_was_sent(model, value, sentence):
    for document in ways(value):
        assert post(model, document) == sentence


def test_the_row_is_that_of_the_first_image_that_cannot_be_used(model, image):
    rows = [[text] for text in (texts(image)[0], texts(image)[1], "QUJD", None)]
    assert post(model, {"dataframe_split": {"data": rows[:3]}}) == "image: row 2 cannot be used (not an image)"
    assert post(model, {"dataframe_split": {"data": rows}}) == "image: row 3 is null"


def test_an_image_that_would_take_gigabytes_takes_none(model):
    buffer = io.BytesIO()
    Image.new("L", (1, 60_000)).save(buffer, "png")
    assert len(buffer.getvalue()) < 300
    assert len(model.predict(buffer.getvalue())) == 1
    buffer = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, "png")
    assert "row 0 cannot be used (13000×13000 pixels" in post(
        model, {"inputs": [base64.b64encode(buffer.getvalue()).decode()]}
    )


def test_all_classes_are_there_on_request(model, image):
    text = texts(image)[0]
    (row,) = post(model, {"inputs": [text], "params": {"probabilities": True, "top_k": 1}})
    assert set(row["probabilities"]) == {"cat", "dog"}
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert row["probabilities"][row["label"]] == row["score"]
    assert "probabilities" not in post(model, {"inputs": [text]})[0]


def test_settings_that_cannot_be_are_one_sentence_and_a_batch_has_a_bound(model, image):
    text = texts(image)[0]
    assert post(model, {"inputs": [text], "params": {"top_k": 0}}) == "top_k: got 0, must be 1 or more"
    assert len(post(model, {"inputs": [text], "params": {"batch_size": 10**12}})) == 1
