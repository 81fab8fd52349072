"""Linear classifiers on frozen features: what a fine-tuned network has to beat."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainable.config import TrialConfig
from trainable.data.batches import evaluation_batches, normalise
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.evaluate import Evaluation, score
from trainable.fitting import pick_device
from trainable.model.backbone import input_spec
from trainable.model.network import Network, create_network


def linear_probe(config: TrialConfig) -> Evaluation:
    """Validation scores of an untuned logistic regression on standardised pooled features.

    The features are those of the pretrained backbone for the evaluation view of each training image; classes weigh
    the same.
    """
    device = pick_device(config)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    network = create_network(config, spec=spec, num_classes=len(pack.classes)).to(device)
    features = {
        split: _features(network, pack=pack, spec=spec, split=split, batch_size=config.train.batch_size)
        for split in ("train", "val")
    }
    labels = {split: pack.labels[pack.indices(split)] for split in ("train", "val")}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    probe.fit(features["train"], labels["train"])
    return score(probe.predict_proba(features["val"]), labels=labels["val"], classes=pack.classes)


def _features(network: Network, *, pack: Pack, spec: InputSpec, split: str, batch_size: int) -> NDArray[np.float32]:
    """Pooled features N×F of a split, in its canonical order."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        rows = [
            network.features(normalise(batch.images.to(device), spec)).float().cpu()
            for batch in evaluation_batches(pack, split, spec=spec, batch_size=batch_size)
        ]
    return torch.cat(rows).numpy()
