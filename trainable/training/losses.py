"""What is minimised: one loss for hard and soft targets, by the name that a trial gives."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from trainable.config.trial import LossConfig
from trainable.loader.batches import effective_number


class Loss(Protocol):
    """A loss as a sum, so that the caller divides by the weight of a whole update."""

    def sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch, a scalar; ``logits`` N×K, ``targets`` labels N or probabilities N×K."""
        ...

    def weight(self, targets: Tensor) -> Tensor:
        """What the sum of a batch is to be divided by, a scalar."""
        ...


def create_loss(
    config: LossConfig, *, counts: Tensor, shown: Tensor | None = None, device: torch.device | None = None
) -> Loss:
    """The loss of a trial whose classes have ``counts`` training images each, K.

    ``shown`` are the images of an epoch by class, K, where old ones are rehearsed beside those.
    """
    weights = class_weights(counts, config=config).to(device)
    return LOSSES[config.name](config, weights, (counts if shown is None else shown).to(device))


def create_balanced_loss(config: LossConfig, *, counts: Tensor, device: torch.device | None = None) -> Loss:
    """The loss for images that are drawn from every class equally often: no class weighs more than another, or is rarer."""
    unweighted = config.model_copy(update={"class_weights": "none", "focal_alpha": None})
    return create_loss(unweighted, counts=torch.ones_like(counts), device=device)


class CrossEntropy:
    """Weighted, smoothed, focal, shifted cross-entropy.

    With weights w, targets y (N×K, rows sum to 1), smoothing ε spread over the K classes and exponent γ, the loss of a
    batch is Σ_nk w_k y'_nk (1-p_nk)^γ (-log p_nk) / Σ_nk w_k y_nk with y' = (1-ε)y + ε/K. For hard labels and γ = 0 this
    is torch's ``cross_entropy``, whose soft-target form divides by N instead and so changes when a one-hot row is
    given; for γ > 0 it is the focal loss of Lin et al. 2017. A ``shift`` K is added to the logits that p is made of.
    """

    def __init__(
        self, weights: Tensor, *, label_smoothing: float = 0.0, gamma: float = 0.0, shift: Tensor | None = None
    ) -> None:
        """``weights``: one for each of the K classes."""
        self.weights = weights
        self.label_smoothing = label_smoothing
        self.gamma = gamma
        self.shift = shift

    def sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum over the batch, nats."""
        soft = self._soft(targets)
        smooth = (1 - self.label_smoothing) * soft + self.label_smoothing / soft.shape[1]
        log_p = log_softmax(logits.float() if self.shift is None else logits.float() + self.shift, dim=1)
        if self.gamma:
            # 1-p from its logarithm's own difference: a power of zero has no gradient.
            smooth = smooth * (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
        return -(self.weights * smooth * log_p).sum()

    def weight(self, targets: Tensor) -> Tensor:
        """Sum of the weights of the targets' classes."""
        return (self._soft(targets) * self.weights).sum()

    def _soft(self, targets: Tensor) -> Tensor:
        return one_hot(targets, len(self.weights)).to(self.weights) if targets.ndim == 1 else targets.to(self.weights)


def _cross_entropy(config: LossConfig, weights: Tensor, _counts: Tensor) -> Loss:
    return CrossEntropy(weights, label_smoothing=config.label_smoothing)


def _focal(config: LossConfig, weights: Tensor, _counts: Tensor) -> Loss:
    return CrossEntropy(weights, label_smoothing=config.label_smoothing, gamma=config.focal_gamma)


def _balanced_softmax(config: LossConfig, weights: Tensor, counts: Tensor) -> Loss:
    """Of p_k = n_k·exp z_k / Σ_j n_j·exp z_j with logits z and counts n (Ren et al. 2020)."""
    return CrossEntropy(weights, label_smoothing=config.label_smoothing, shift=prior_shift(counts, tau=1.0))


def _logit_adjusted(config: LossConfig, weights: Tensor, counts: Tensor) -> Loss:
    """The logit-adjusted loss (Menon et al. 2021, eq. 10): balanced softmax where τ is 1, cross-entropy where it is 0."""
    shift = prior_shift(counts, tau=config.logit_tau)
    return CrossEntropy(weights, label_smoothing=config.label_smoothing, shift=shift)


# From a configuration, the weights of its K classes and how many images of each an epoch shows.
LOSSES: dict[str, Callable[[LossConfig, Tensor, Tensor], Loss]] = {
    "ce": _cross_entropy,
    "focal": _focal,
    "balanced_softmax": _balanced_softmax,
    "logit_adjusted": _logit_adjusted,
}


def class_weights(counts: Tensor, *, config: LossConfig) -> Tensor:
    """Weights K of classes with ``counts`` training images each, scaled to mean 1; a class without images counts as one."""
    counts = counts.double().clamp(min=1)
    if config.name == "focal" and config.focal_alpha is not None:
        weights = _favouring_the_rarest(counts, alpha=config.focal_alpha)
    else:
        weights = CLASS_WEIGHTS[config.class_weights](counts) ** -config.class_weight_power
    return (weights / weights.mean()).to(torch.float32)


# The amount of each of the K classes, by whose inverse it is weighted, from its number of images.
CLASS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "inverse": torch.clone,
    "effective": effective_number,
}


def _favouring_the_rarest(counts: Tensor, *, alpha: float) -> Tensor:
    weights = torch.full_like(counts, 1 - alpha)
    weights[counts.argmin()] = alpha
    return weights


def prior_shift(counts: Tensor, *, tau: float) -> Tensor:
    """What logit adjustment takes off the K logits at inference, or adds in the loss: τ·log of each class's share (Menon et al.
    2021); a class without images counts as one.
    """
    counts = counts.double().clamp(min=1)
    return (tau * (counts / counts.sum()).log()).to(torch.float32)
