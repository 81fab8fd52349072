"""A packaged model: where its data are, what it was trained on, what it answers."""

import numpy as np
import pytest

from search.promotion.packaged import config_with_data_below, latency_ms
from trainable.serving.encoded import encoded_images

pytestmark = pytest.mark.slow


def test_relative_paths_of_data_count_from_where_a_version_was_made(served, folders):
    candidate = served("old")
    description = candidate.description["config"]
    relative = {**description, "data": {**description["data"], "path": "old"}}
    assert config_with_data_below(relative, root=folders).data.path == str(folders / "old")
    assert config_with_data_below(relative, root=folders / "nowhere").data.path == "old"
    listed = {**relative, "data": {**relative["data"], "images": "grown"}}
    assert config_with_data_below(listed, root=folders).data.images == str(folders / "grown")


def test_a_domain_is_no_path_though_a_folder_bears_its_name(served, folders):
    description = served("old").description["config"]
    domains = {"path": "old", "domain_column": "kind", "source": ["grown"], "target": "wider"}
    data = config_with_data_below({**description, "data": {**description["data"], **domains}}, root=folders).data
    assert (data.source, data.target) == (["grown"], "wider")
    folders_apart = {"path": "", "source": ["grown"], "target": "wider"}
    data = config_with_data_below({**description, "data": {**description["data"], **folders_apart}}, root=folders).data
    assert (data.source, data.target) == ([str(folders / "grown")], str(folders / "wider"))


def test_it_knows_what_it_was_trained_on_and_chosen_by(served):
    model = served("old")
    images = {split: encoded_images(model.config, split=split) for split in ("train", "val", "test")}
    known = {split: {model.was_trained_on(image.sample_id) for image in found} for split, found in images.items()}
    assert known == {"train": {True}, "val": {True}, "test": {False}}
    assert not model.was_trained_on(0)
    assert model.test_split == "test"


def test_of_a_class_that_it_does_not_know_it_says_nothing(served):
    model = served("old")
    images = encoded_images(model.config, split="test")[:3]
    found = model.answer(images, classes=["functional", "unknown", "defective"])
    assert found.shape == (3, 3)
    assert (found[:, 1] == 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    assert model.answer([], classes=model.classes).shape == (0, 2)
    assert latency_ms(model, images[0]) > 0
