"""Trials small enough for seconds."""

import shutil

import pytest

from trainable import TrialConfig


@pytest.fixture(scope="session")
def cell_folder(tmp_path_factory, cells):
    """40 real cells in two folders by their order, which no network can learn but any can train on."""
    root = tmp_path_factory.mktemp("cells")
    for index, path in enumerate(cells):
        folder = root / ("defective" if index % 3 == 0 else "functional")
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture
def make_config(cell_folder, cache):
    def make(**sections):
        base = {
            "data": {"path": str(cell_folder), "image_size": 32, "cache": cache},
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 4, "batch_size": 9},
            "augment": {"strength": "light"},
        }
        for name, values in sections.items():
            base[name] = base.get(name, {}) | values if isinstance(values, dict) else values
        return TrialConfig.model_validate(base)

    return make
