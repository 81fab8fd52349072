"""What learns beside a network to bring its domains together."""

import torch
from torch import nn

from trainable.adapt.losses import ConditionalMap, Discriminator
from trainable.config import DISCRIMINATING_METHODS, AdaptConfig
from trainable.randomness import derive


class Adapter(nn.Module):
    """The ``discriminator`` of aligned features, for CDAN behind its ``map``; nothing learns in one of another method."""

    def __init__(self, *, discriminator: nn.Module | None = None, conditional_map: nn.Module | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator if discriminator is not None else nn.Identity()
        self.map = conditional_map if conditional_map is not None else nn.Identity()


def create_adapter(config: AdaptConfig, *, width: int, num_classes: int, seed: int) -> Adapter:
    """What ``config.method`` has beside the network, for aligned features N×``width``."""
    if config.method not in DISCRIMINATING_METHODS:
        return Adapter()
    conditional_map = None
    if config.method == "cdan":
        conditional_map = ConditionalMap(width, num_classes, seed=derive(seed, "conditional map"))
        width = conditional_map.out_width
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "discriminator"))
        discriminator = Discriminator(width, hidden=config.hidden, dropout=config.dropout)
    return Adapter(discriminator=discriminator, conditional_map=conditional_map)
