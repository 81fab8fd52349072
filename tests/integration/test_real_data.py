"""A search on images as people have them: what is noticed is said wherever the results are."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(make_place):
    """A finished search of one trial: splits of odd names, cut-outs, a test image that is in training, a rare class."""
    place = make_place()
    (place.folder / "images").unlink()
    generator = np.random.default_rng(0)
    for split, number in (("Training", 10), ("Valid", 3), ("seg_test", 3)):
        for label, colour in (("dark", 60), ("light", 170)):
            folder = place.folder / "images" / split / label
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(generator.normal(colour, 30, (32, 32, 4)), 0, 255).astype(np.uint8)
                pixels[..., 3] = 255
                pixels[:4, :, 3] = 0
                Image.fromarray(pixels).save(folder / f"{index}.png")
    images = place.folder / "images"
    shutil.copy(images / "Training/dark/0.png", images / "seg_test/dark/again.png")
    (images / "seg_test/odd").mkdir()
    Image.new("RGB", (32, 32), (200, 30, 60)).save(images / "seg_test/odd/0.png")
    (images / "__MACOSX").mkdir()
    (images / "__MACOSX/._0.png").write_bytes(b"")
    place.write_space(
        search={"trials": 1},
        scheduler={"max_epochs": 1},
        base={"data": {"path": "images", "image_size": 32, "background": "white", "rare": "drop"}},
        soup=0,
        promote={"confirm": {"top": 1, "seeds": 1}},
    )
    (place.folder / "told.txt").write_text(place.told("run", "space.yaml"))
    return place


def test_what_is_noticed_is_said_when_a_search_begins_and_beside_its_test_score(place):
    told = (place.folder / "told.txt").read_text()
    for part in (
        "note: folders were taken for splits: Training/ for train, Valid/ for val, seg_test/ for test",
        "note: 1 image more than once in different splits",
        "note: 1 class in val or test and not in train: 'odd' (1 image), left out",
        "note: 33 images with transparency (laid on white)",
        "note: 1 file left out: __MACOSX 1",
        "warning: images of the test split that are in train or val as well: 1, so this score is too good",
    ):
        assert part in told


def test_the_page_and_mlflow_have_the_data_report(place):
    page = (place.folder / "searches/cells/report.html").read_text()
    assert "<h2>Data</h2>" in page
    assert "33 images of 2 classes; left out 2 of 35 files" in page
    assert "so this score is too good" in page
    (artifact,) = place.folder.glob("mlartifacts/**/data.json")
    report = json.loads(artifact.read_text())
    assert report == place.read("report", "cells")["data"]
    assert (report["files"], report["used"], report["known_in_test"]) == (35, 33, 1)
    assert artifact.with_suffix(".txt").read_text().splitlines() == report["lines"]


def test_a_packaged_model_decodes_as_its_search_did_and_is_not_judged_by_images_it_knows(place):
    document = place.read("promote", "cells", "--force")
    assert document["outcome"] == "promoted"
    assert document["candidate"]["test_images_known"] == 1
    (description,) = (place.folder / "searches/cells/refits/packages").glob("*/package/model.json")
    assert json.loads(description.read_text())["input"]["background"] == "white"
    images = place.folder / "images/seg_test"
    kept = images / "dark/0.png"
    hidden = np.asarray(Image.open(kept)).copy()
    hidden[:4, :, :3] = 255 - hidden[:4, :, :3]  # colours that one cannot see
    (place.folder / "other").mkdir()
    Image.fromarray(hidden).save(place.folder / "other/0.png")
    (place.folder / "other/@eaDir").mkdir()
    shutil.copy(kept, place.folder / "other/@eaDir/0.png")
    answers = place.read("predict", "models:/cells@champion", str(kept), "other")
    rows = answers if isinstance(answers, list) else answers["predictions"]
    assert len(rows) == 2  # thumbnails are no images here either
    assert rows[0]["top_k_scores"] == rows[1]["top_k_scores"]
