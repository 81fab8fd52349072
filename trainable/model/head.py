"""Classifiers on pooled features: one for each value of ``model.head``."""

from collections.abc import Callable

import torch
from torch import nn

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.model.layers import CosineLayer, TextLayer
from trainable.randomness import derive


def create_head(config: TrialConfig, *, width: int, num_classes: int, epoch: int) -> nn.Module:
    """The head that begins after ``epoch``, on features N×``width``: a sequence of layers, the last of which classifies."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(config.seed, "head", epoch))
        return HEADS[config.model.head](config.model, width, num_classes)


def _linear_head(config: ModelConfig, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(config.dropout), _silent(width, num_classes))


def _mlp_head(config: ModelConfig, width: int, num_classes: int) -> nn.Sequential:
    last = _silent(
        config.head_hidden, num_classes
    )  # drawn first: the seeds of earlier searches give the starts they gave
    return nn.Sequential(nn.Linear(width, config.head_hidden), nn.ReLU(), nn.Dropout(config.dropout), last)


def _cosine_head(config: ModelConfig, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(config.dropout), CosineLayer(width, num_classes))


def _text_head(config: ModelConfig, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(config.dropout), TextLayer(width, num_classes))


def _silent(width: int, num_classes: int) -> nn.Linear:
    """A layer that starts at zero logits, so that the first gradients reach the backbone unscrambled."""
    layer = nn.Linear(width, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


HEADS: dict[str, Callable[[ModelConfig, int, int], nn.Sequential]] = {
    "linear": _linear_head,
    "mlp": _mlp_head,
    "cosine": _cosine_head,
    "text": _text_head,
}


def cool(head: nn.Module, *, temperature: float) -> None:
    """Divide the logits of a head by a temperature from now on."""
    last = [module for module in head.modules() if isinstance(module, nn.Linear | CosineLayer)][-1]
    scales = [last.scale] if isinstance(last, CosineLayer) else [last.weight, last.bias]
    with torch.no_grad():
        for scale in scales:
            scale.div_(temperature)
