"""One loss for hard and soft targets."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from trainable.config.trial import LossConfig
from trainable.loader.batches import effective_number


class CrossEntropy:
    """Weighted, smoothed, focal cross-entropy; sums, so that the caller divides by the weight of a whole update.

    With weights w, targets y (N×K, rows sum to 1), smoothing ε spread over the K classes and exponent γ, the loss of a
    batch is Σ_nk w_k y'_nk (1-p_nk)^γ (-log p_nk) / Σ_nk w_k y_nk with y' = (1-ε)y + ε/K. For hard labels and γ = 0 this
    is torch's ``cross_entropy``, whose soft-target form divides by N instead and so changes when a one-hot row is
    given; for γ > 0 it is the focal loss of Lin et al. 2017.
    """

    def __init__(self, weights: Tensor, *, label_smoothing: float = 0.0, gamma: float = 0.0) -> None:
        """``weights``: one for each of the K classes."""
        self.weights = weights
        self.label_smoothing = label_smoothing
        self.gamma = gamma

    def sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum over the batch, nats; ``logits`` N×K, ``targets`` labels N or probabilities N×K."""
        soft = self._soft(targets)
        smooth = (1 - self.label_smoothing) * soft + self.label_smoothing / soft.shape[1]
        log_p = log_softmax(logits.float(), dim=1)
        if self.gamma:
            # 1-p from its logarithm's own difference: a power of zero has no gradient.
            smooth = smooth * (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
        return -(self.weights * smooth * log_p).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """What the sum of a batch is to be divided by."""
        return (self._soft(targets) * self.weights).sum()

    def _soft(self, targets: Tensor) -> Tensor:
        return one_hot(targets, len(self.weights)).to(self.weights) if targets.ndim == 1 else targets.to(self.weights)


def create_loss(config: LossConfig, *, counts: Tensor, device: torch.device | None = None) -> CrossEntropy:
    """The loss of a trial whose classes have ``counts`` training images each, K."""
    gamma = config.focal_gamma if config.name == "focal" else 0.0
    weights = class_weights(counts, config=config).to(device)
    return CrossEntropy(weights, label_smoothing=config.label_smoothing, gamma=gamma)


def class_weights(counts: Tensor, *, config: LossConfig) -> Tensor:
    """Weights K of classes with ``counts`` training images each, scaled to mean 1; a class without images counts as one."""
    counts = counts.double().clamp(min=1)
    if config.name == "focal" and config.focal_alpha is not None:
        weights = torch.full_like(counts, 1 - config.focal_alpha)
        weights[counts.argmin()] = config.focal_alpha
    elif config.class_weights == "none":
        weights = torch.ones_like(counts)
    else:
        amount = counts if config.class_weights == "inverse" else effective_number(counts)
        weights = amount**-config.class_weight_power
    return (weights / weights.mean()).to(torch.float32)


def prior_shift(counts: Tensor, *, tau: float) -> Tensor:
    """What logit adjustment takes off the K logits at inference: τ·log of each class's share (Menon et al. 2021)."""
    counts = counts.double().clamp(min=1)
    return (tau * (counts / counts.sum()).log()).to(torch.float32)
