"""How good a network is on held-out images."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.model.network import Network


@dataclass(frozen=True)
class Predicted:
    """What a network makes of N images: pooled features N×F, probabilities N×K; with their labels N, -1 where unknown."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]


def predict(
    network: Network, *, batches: Iterable[tuple[Tensor, Tensor]], autocast: AbstractContextManager[object]
) -> Predicted:
    """Outputs of the network in eval mode over batches of (normalised images N×C×S×S, labels N)."""
    network.eval()
    features, logits, labels = [], [], []
    with torch.inference_mode(), autocast:
        for images, targets in batches:
            pooled, found = network.answer(images)
            features.append(pooled.float())
            logits.append(found.float())
            labels.append(targets)
    probabilities = torch.cat(logits).cpu().double().softmax(dim=1).numpy()  # the first time that a GPU is waited for
    return Predicted(torch.cat(features).cpu().numpy(), probabilities, torch.cat(labels).cpu().numpy())
