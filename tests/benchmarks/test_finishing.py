"""What the benchmark of finishing says of a trained network; the searches that it is for take minutes."""

import importlib
import sys
from pathlib import Path

import pytest

from trainable import fit
from trainable.config.trial import TrialConfig
from trainable.training.trained import Trained

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def finishing(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("finishing")
    sys.modules.pop("finishing", None)


def test_each_step_is_scored_on_test_images_beside_the_network_as_it_was_trained(
    finishing, cell_folder, cache, tmp_path
):
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(cell_folder), "image_size": 32, "cache": cache},
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 2, "batch_size": 9},
            "augment": {"strength": "light", "flip": "both"},
        }
    )
    (*_, last) = fit(config)
    last.save(tmp_path / "checkpoint")
    trained = Trained(config=config, checkpoint=tmp_path / "checkpoint")
    rows = list(finishing.measure(trained, steps=finishing.STEPS))
    assert [what for what, _, _ in rows] == ["as trained", *finishing.STEPS]
    plain = trained.score("test").metrics
    assert {name: rows[0][2][name] for name in plain} == plain
    for step, is_kept, found in rows[1:]:
        assert is_kept == any(tried.kept for tried in trained.find_finish([step]).tried)
        assert (found["loss"] != plain["loss"]) == is_kept
    *_, as_trained, _, _, _, _ = finishing.table(rows * 2, title="cells")
    assert as_trained.startswith(f"| as trained | 2 of 2 | {plain['balanced_accuracy']:.4f} |")
