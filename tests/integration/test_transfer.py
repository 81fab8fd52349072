"""Real weights on real photographs: the probe beats the majority, transfer beats scratch.

That fine-tuning beats the probe is seen on the whole data set, by the quickstart.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from trainable import TrialConfig, fit
from trainable.diagnosis.features import frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.training.recipes import from_scratch

pytestmark = pytest.mark.slow
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """400 solar cells, every sixth of the package's, defective where anybody doubted (Deitsch et al. 2019)."""
    root = tmp_path_factory.mktemp("cells")
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    for line in (data / "labels.csv").read_text().splitlines()[::6][:400]:
        name, probability, _ = line.split()
        folder = root / "images" / ("defective" if float(probability) > 0 else "functional")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name, folder)
    return TrialConfig.model_validate(
        {
            "data": {"path": str(root / "images"), "image_size": 64, "cache": str(root / "cache"), "val_share": 0.3},
            "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
            "finetune": {"strategy": "lp_ft"},
            "freeze": {"depth": 0.5},
            "optimizer": {"lr": 3e-4},
            "train": {"epochs": 2, "batch_size": 16, "metric": "val/accuracy"},
            "augment": {"flip": "both", "rotate": "quarter"},
        }
    )


def best(config):
    return max(epoch.metrics["val/accuracy"] for epoch in fit(config))


def test_the_probe_beats_the_majority_and_transfer_scratch_at_equal_epochs(config):
    probe = stage_probe(frozen_features(config), stage="pooled")
    counts = [scores["count"] for scores in probe.per_class.values()]
    majority = max(counts) / sum(counts)
    tuned, scratch = best(config), best(from_scratch(config))
    print(f"majority {majority:.3f}, probe {probe.metrics['accuracy']:.3f}, tuned {tuned:.3f}, scratch {scratch:.3f}")
    assert probe.metrics["accuracy"] > majority
    assert tuned > scratch
