"""What learns beside a network to bring its domains together."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from trainable.config.techniques import METHODS
from trainable.config.trial import AdaptConfig
from trainable.model.precision import full_precision
from trainable.randomness import derive

LARGEST_MAP = 4096  # of the multilinear map; no wider than the layers of usual networks (Long et al. 2018)
RANDOM_WIDTH = 1024  # of its random stand-in, whose errors in inner products fall with the root of it


class Adapter(nn.Module):
    """The ``discriminator`` of aligned features, for CDAN behind its ``map``; nothing learns in one of another method."""

    def __init__(self, *, discriminator: nn.Module | None = None, conditional_map: nn.Module | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator if discriminator is not None else nn.Identity()
        self.map = conditional_map if conditional_map is not None else nn.Identity()


def create_adapter(config: AdaptConfig, *, width: int, num_classes: int, seed: int) -> Adapter:
    """What ``config.method`` has beside the network, for aligned features N×``width``."""
    sees = METHODS[config.method].domain_classifier
    if sees is None:
        return Adapter()
    conditional_map = None
    if sees == "features and predictions":
        conditional_map = ConditionalMap(width, num_classes, seed=derive(seed, "conditional map"))
        width = conditional_map.out_width
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "discriminator"))
        discriminator = Discriminator(width, hidden=config.hidden, dropout=config.dropout)
    return Adapter(discriminator=discriminator, conditional_map=conditional_map)


class Discriminator(nn.Module):
    """Tells the domain of an image from its features: N×D to the N logits of "is of the target"."""

    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        """``width``: D. ``hidden``: units of each of the two hidden layers. ``dropout``: share of them left out."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The logits N of features N×D."""
        with full_precision(features) as (features,):
            return cast(Tensor, self.layers(features)).squeeze(1)


def conditioned(features: Tensor, probabilities: Tensor) -> Tensor:
    """CDAN's multilinear map N×(D·K): the products of all features N×D and probabilities N×K (Long et al. 2018).

    Element d·K+k is feature d times probability k. The paper's own experiments detach the probabilities; so may the caller.
    """
    with full_precision(features, probabilities) as (features, probabilities):
        return (features[:, :, None] * probabilities[:, None, :]).flatten(start_dim=1)


class ConditionalMap(nn.Module):
    """:func:`conditioned`, or, where that were wider than ``LARGEST_MAP``, its random stand-in N×``RANDOM_WIDTH``.

    The stand-in is (F·R_f ⊙ P·R_p)/√width, with fixed R_f and R_p ~ N(0, 1) (Long et al. 2018, eq. 6): inner products of
    images are, in expectation, those of the whole map. ``out_width`` says the width of either.
    """

    features_matrix: Tensor | None
    classes_matrix: Tensor | None

    def __init__(self, width: int, num_classes: int, *, seed: int) -> None:
        """``width``: D. ``seed``: of the matrices, drawn on the CPU."""
        super().__init__()
        narrow = width * num_classes <= LARGEST_MAP
        generator = torch.Generator().manual_seed(seed)
        self.out_width = width * num_classes if narrow else RANDOM_WIDTH
        for name, rows in (("features_matrix", width), ("classes_matrix", num_classes)):
            self.register_buffer(name, None if narrow else torch.randn(rows, RANDOM_WIDTH, generator=generator))

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """N×``out_width`` of features N×D and probabilities N×K."""
        if self.features_matrix is None or self.classes_matrix is None:
            return conditioned(features, probabilities)
        with full_precision(features, probabilities) as (features, probabilities):
            both = (features @ self.features_matrix) * (probabilities @ self.classes_matrix)
            return both / math.sqrt(self.out_width)
