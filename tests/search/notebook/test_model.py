"""A trained network that answers for images."""

import pytest

from search.notebook.model import Model
from trainable import TrialConfig, fit
from trainable.errors import UserError
from trainable.serving.package import package


@pytest.fixture(scope="module")
def model(tmp_path_factory, cell_folder):
    root = tmp_path_factory.mktemp("model")
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(cell_folder), "image_size": 32, "cache": str(root / "cache")},
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 1, "batch_size": 9},
        }
    )
    for epoch in fit(config):
        epoch.save(root / "checkpoint")
    package(config, folder=root / "package", checkpoint=root / "checkpoint")
    return Model(root / "package")


def test_files_folders_and_bytes_are_answered_a_row_each(model, cell_folder):
    some = sorted(cell_folder.rglob("*.png"))[:3]
    of_files = model.probabilities(some)
    assert of_files.columns.tolist() == list(model.classes)
    assert of_files.index.tolist() == list(map(str, some))
    assert of_files.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    of_bytes = model.probabilities([path.read_bytes() for path in some])
    assert of_bytes.to_numpy().tolist() == of_files.to_numpy().tolist()
    assert of_bytes.index.tolist() == ["image 0", "image 1", "image 2"]
    assert len(model.probabilities(cell_folder)) == len(list(cell_folder.rglob("*.png")))


def test_the_likeliest_class_is_predicted_with_its_score(model, cell_folder):
    image = min(cell_folder.rglob("*.png"))
    predicted, probabilities = model.predict(image), model.probabilities(image)
    label = predicted["label"].iloc[0]
    assert predicted["score"].iloc[0] == probabilities[label].iloc[0] == probabilities.to_numpy().max()


def test_what_is_neither_file_nor_folder_is_a_mistake(model, tmp_path):
    with pytest.raises(UserError, match="nowhere.png: there is no such file or folder"):
        model.predict(tmp_path / "nowhere.png")
