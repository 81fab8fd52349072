"""Trials small enough for seconds."""

import pytest

from trainable import TrialConfig


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
