"""Classifiers on pooled features."""

import torch
from torch import nn

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.randomness import derive


def create_head(config: TrialConfig, *, width: int, num_classes: int, epoch: int) -> nn.Module:
    """The head that begins after ``epoch``, on features N×``width``."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(config.seed, "head", epoch))
        return _create_head(config.model, width=width, num_classes=num_classes)


def _create_head(config: ModelConfig, *, width: int, num_classes: int) -> nn.Module:
    """A head that starts at zero logits, so that the first gradients reach the backbone unscrambled."""
    last = nn.Linear(width if config.head == "linear" else config.head_hidden, num_classes)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if config.head == "linear":
        return nn.Sequential(nn.Dropout(config.dropout), last)
    return nn.Sequential(nn.Linear(width, config.head_hidden), nn.ReLU(), nn.Dropout(config.dropout), last)
