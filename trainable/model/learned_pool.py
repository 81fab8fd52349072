"""Pools with weights of their own, which train with the head."""

import torch
from torch import Tensor, nn


class GeneralisedMean(nn.Module):
    """N×L×C positions to N×C: (mean of x^p)^(1/p), p learned from 3 on (GeM, Radenović et al. 2018).

    With p = 1 it is the mean, the larger p the nearer the maximum; a lower p counts as 1, a value below ``LEAST`` as that. The
    same lines stand in ``trainable.serving.classifier``; a test holds both equal.
    """

    LEAST = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, positions: Tensor) -> Tensor:
        """Pooled features N×C, float32."""
        values, exponent = positions.float().clamp(min=self.LEAST), self.exponent.clamp(min=1)
        largest = values.amax(dim=1, keepdim=True).detach()  # a large power of what is above 1 is no number
        return (values / largest).pow(exponent).mean(dim=1).pow(1 / exponent) * largest[:, 0]


class AttentivePool(nn.Module):
    """N×L×C positions to N×C: their mean by softmax(x·q/√C), with one learned query q that begins as 0, where it is the mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, positions: Tensor) -> Tensor:
        """Pooled features N×C, float32."""
        values = positions.float()
        scores = (values * self.query).sum(dim=2, keepdim=True) / len(self.query) ** 0.5
        pooled: Tensor = (scores.softmax(dim=1) * values).sum(dim=1)
        return pooled
