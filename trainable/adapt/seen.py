"""A batch of both domains, as a method of adaptation sees it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainable.adapt.losses import bounded_strength, dynamic_strength
from trainable.config.trial import AdaptConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import Network
from trainable.model.stages import StageEnd

Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Terms:
    """What an update minimises, a scalar, and its parts by name, scalars without gradient.

    ``source_loss`` is the classification's, ``target_loss`` the method's term before its weight, ``adapt_weight`` that
    weight, ``domain_accuracy`` the share that the domain classifier tells right.
    """

    loss: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A batch in the making.

    ``images`` N×C×S×S of the source and ``others`` M×C×S×S of the target are normalised by ``spec``; ``classify`` is the loss of
    logits N×K; ``strength`` the weight of the method's term, what ``dynamic`` and ``bounded`` make of it
    aside; ``end`` where the aligned stage ends.
    """

    config: AdaptConfig
    spec: InputSpec
    end: StageEnd | None
    network: Network
    images: Tensor
    others: Tensor
    classify: Classify
    strength: float
    autocast: AbstractContextManager[object]

    def together(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of source and target, aligned features of both, from one pass."""
        with self.autocast:
            pooled, aligned = self.network.look(torch.cat([self.images, self.others]), end=self.end)
            logits = self.network.classify(pooled)
        sizes = [len(self.images), len(self.others)]
        source, target = torch.split(aligned, sizes)
        of_source, of_target = torch.split(logits, sizes)
        return of_source, of_target, source, target

    def weight(self, source: Tensor, target: Tensor) -> float | Tensor:
        """The weight of the method's term, by the distance of these features where the schedule is ``dynamic``."""
        if self.config.schedule != "dynamic":
            return self.strength
        return self.strength * dynamic_strength(source, target, scale=self.config.dynamic_scale)

    def minimise(self, classification: Tensor, term: Tensor, *, source: Tensor, target: Tensor) -> Terms:
        """Both losses, the ``term`` of a method times its weight, which may go by these features or by the losses."""
        weight = self.weight(source, target)
        if self.config.schedule == "bounded":
            weight = weight * bounded_strength(term, by=classification)
        return weighted_sum(classification, term, weight=weight)


def classified(seen: Seen) -> Terms:
    """The classification of the source alone."""
    with seen.autocast:
        logits = seen.network(seen.images)
    return Terms(seen.classify(logits), {})


def weighted_sum(classification: Tensor, term: Tensor, *, weight: float | Tensor) -> Terms:
    """Both losses, the ``term`` of a method times its ``weight``."""
    parts = {"source_loss": classification.detach(), "target_loss": term.detach()}
    return Terms(classification + weight * term, parts | {"adapt_weight": as_scalar(weight, like=term)})


def as_scalar(value: float | Tensor, *, like: Tensor) -> Tensor:
    """A float32 scalar where ``like`` is."""
    return torch.as_tensor(value, device=like.device, dtype=torch.float32)
