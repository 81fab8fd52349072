"""One loss for hard and soft targets."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from trainable.config import LossConfig


class CrossEntropy:
    """Weighted, smoothed cross-entropy; sums, so that the caller divides by the weight of a whole update.

    With weights w, targets y (N×K, rows sum to 1) and smoothing ε spread over the K classes, the loss of a batch is
    Σ_nk w_k y'_nk (-log p_nk) / Σ_nk w_k y_nk with y' = (1-ε)y + ε/K. For hard labels this is torch's
    ``cross_entropy``, whose soft-target form divides by N instead and so changes when a one-hot row is given.
    """

    def __init__(self, weights: Tensor, *, label_smoothing: float = 0.0) -> None:
        """``weights``: one for each of the K classes."""
        self.weights = weights
        self.label_smoothing = label_smoothing

    def sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum over the batch, nats; ``logits`` N×K, ``targets`` labels N or probabilities N×K."""
        soft = self._soft(targets)
        smooth = (1 - self.label_smoothing) * soft + self.label_smoothing / soft.shape[1]
        return -(self.weights * smooth * log_softmax(logits.float(), dim=1)).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """What the sum of a batch is to be divided by."""
        return (self._soft(targets) * self.weights).sum()

    def _soft(self, targets: Tensor) -> Tensor:
        return one_hot(targets, len(self.weights)).to(self.weights) if targets.ndim == 1 else targets.to(self.weights)


def class_weights(counts: Tensor, *, config: LossConfig) -> Tensor:
    """Weights K of classes with ``counts`` training images each, scaled to mean 1."""
    power = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}[config.class_weights]
    weights = counts.double().clamp(min=1) ** -power
    return (weights / weights.mean()).to(torch.float32)
