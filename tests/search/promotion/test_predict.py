"""Images classified by a registered model."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from search.promotion.predict import Prediction, predict, predictions_table, write_csv
from search.tracking.registry import Registry
from trainable.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(served, empty_database, tmp_path_factory):
    """A store with one registered model."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    experiment = MlflowClient(uri).create_experiment("cells", artifact_location=(folder / "artifacts").as_uri())
    run = MlflowClient(uri).create_run(experiment)
    registry = Registry(uri, name="cells", lock_folder=folder)
    registry.register("one", model=served("old").folder, run_id=run.info.run_id, tags={}, sentence="as made")
    return uri


def test_files_and_folders_are_classified_in_their_order_and_what_is_no_image_costs_no_other(uri, folders, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = predict("models:/cells/1", [tmp_path / "broken.png", folders / "old"], uri=uri, top_k=2)
    assert [prediction.path for prediction in found[1:]] == sorted(map(str, (folders / "old").rglob("*.png")))
    assert found[0].error is not None
    assert all(set(prediction.top_k) == {"defective", "functional"} for prediction in found[1:])
    assert predictions_table(found).row_count == len(found)
    write_csv(found, path=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["label"] == found[1].top_k[0]
    assert json.loads(rows[1]["top_k"]) == list(found[1].top_k)


def test_a_path_without_images_is_a_mistake(uri, tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        predict("models:/cells/1", [tmp_path / "nowhere"], uri=uri, top_k=1)
    with pytest.raises(UserError, match="has no images"):
        predict("models:/cells/1", [tmp_path], uri=uri, top_k=1)
    with pytest.raises(UserError, match="--csv: cannot write"):
        write_csv(predict_nothing(), path=tmp_path / "none" / "out.csv")


def test_names_that_are_no_utf_8_are_written_as_they_are(tmp_path):
    write_csv([Prediction(path=os.fsdecode(b"caf\xe9.png"), error="no image")], path=tmp_path / "out.csv")
    assert b"caf\xe9.png," in (tmp_path / "out.csv").read_bytes()


def test_an_image_of_which_a_model_is_unsure_is_told_with_what_is_plausible(tmp_path):
    both, none = (
        Prediction(path="a.png", top_k=("crack", "fine"), top_k_scores=(0.5, 0.4), plausible=plausible)
        for plausible in (("crack", "fine"), ())
    )
    sure = replace(both, plausible=("crack",))
    table = predictions_table([both, none, sure])
    assert list(table.columns[1].cells) == ["unsure: crack or fine", "unsure: none", "crack"]
    assert [image.as_dict()["unsure"] for image in (both, none, sure, predict_nothing()[0])] == [
        True,
        True,
        False,
        None,
    ]
    write_csv([both], path=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        assert json.loads(next(csv.DictReader(file))["plausible"]) == ["crack", "fine"]


def test_where_a_class_is_seen_is_one_picture_an_image(uri, folders, tmp_path):
    pytest.importorskip("captum", reason="needs captum: pip install '.[explain]'")
    (tmp_path / "broken.png").write_bytes(b"no image")
    asked = [tmp_path / "broken.png", *sorted((folders / "old" / "defective").iterdir())[:2]]
    found = predict("models:/cells/1", asked, uri=uri, top_k=1, pictures=tmp_path / "seen")
    names = sorted(path.name for path in (tmp_path / "seen").iterdir())
    assert names == [
        f"{n:04d}-{one.top_k[0]}-{Path(one.path).stem}.png" for n, one in enumerate(found) if not one.error
    ]
    with Image.open(tmp_path / "seen" / names[0]) as picture:
        assert picture.size == (32, 32)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^--explain: cannot write .*file"):
        predict("models:/cells/1", asked, uri=uri, top_k=1, pictures=tmp_path / "file")


def predict_nothing():
    return [Prediction(path="a.png", error="no image")]
