"""What an update learns from source images with labels and target images without."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trainable.adapt.losses import (
    coral_loss,
    domain_loss,
    dynamic_strength,
    entropy_weights,
    ganin_strength,
    mcc_loss,
    mmd_loss,
    reverse_gradient,
)
from trainable.adapt.perturb import fourier_swapped, towards
from trainable.config.trial import ALIGNING_METHODS, AdaptConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import Network
from trainable.model.norms import target_statistics
from trainable.model.stages import StageEnd
from trainable.randomness import generator

Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Terms:
    """What an update minimises, a scalar, and its parts by name, scalars without gradient.

    ``source_loss`` is the classification's, ``target_loss`` the method's term before its weight, ``adapt_weight`` that
    weight, ``domain_accuracy`` the share that the domain classifier tells right.
    """

    loss: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Adaptation:
    """A method with what it needs to know of the network: where the aligned stage ends, the range of its images."""

    config: AdaptConfig
    end: StageEnd | None
    spec: InputSpec

    @property
    def sees_target(self) -> bool:
        """Whether updates look at target images."""
        return self.config.method not in ("none", "adabn")

    def strength(self, progress: float) -> float:
        """``adapt.weight`` by its schedule at a share of the training, ``dynamic``'s factor aside."""
        rising = self.config.schedule == "ganin"
        return self.config.weight * (ganin_strength(progress, gamma=self.config.ganin_gamma) if rising else 1.0)

    def swapped(self, images: Tensor, others: Tensor, *, progress: float, seed: tuple[int, ...]) -> Tensor:
        """Pixels N×C×S×S of the source, for ``fda`` a share of them with the target's low frequencies; float32 or as given."""
        if self.config.method != "fda":
            return images
        chosen = torch.rand(len(images), generator=generator(seed[0], "fourier", *seed[1:])) < self.strength(progress)
        where = chosen.to(images.device).view(-1, 1, 1, 1)
        return torch.where(where, fourier_swapped(images, others, beta=self.config.beta), images.float())

    def terms(
        self,
        network: Network,
        *,
        images: Tensor,
        others: Tensor,
        classify: Classify,
        progress: float,
        autocast: AbstractContextManager[object],
    ) -> Terms:
        """The terms of a batch of normalised images N×C×S×S, M×C×S×S of the target; ``classify`` is the loss of logits N×K."""
        seen = _Seen(self, network, images, others, classify, self.strength(progress), autocast)
        if self.config.method in ALIGNING_METHODS:
            return _aligned(seen)
        return {"mcc": _unconfused, "dsbn": _apart, "adversarial": _moved, "fda": _classified}[self.config.method](seen)


@dataclass(frozen=True)
class _Seen:
    """One batch in the making."""

    adaptation: Adaptation
    network: Network
    images: Tensor
    others: Tensor
    classify: Classify
    strength: float
    autocast: AbstractContextManager[object]

    def together(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of source and target, aligned features of both, from one pass."""
        with self.autocast:
            pooled, aligned = self.network.look(torch.cat([self.images, self.others]), end=self.adaptation.end)
            logits = self.network.classify(pooled)
        sizes = [len(self.images), len(self.others)]
        source, target = torch.split(aligned, sizes)
        of_source, of_target = torch.split(logits, sizes)
        return of_source, of_target, source, target

    def weight(self, source: Tensor, target: Tensor) -> float | Tensor:
        """The weight of the method's term, by the distance of these features where the schedule is ``dynamic``."""
        config = self.adaptation.config
        if config.schedule != "dynamic":
            return self.strength
        return self.strength * dynamic_strength(source, target, scale=config.dynamic_scale)


def _classified(seen: _Seen) -> Terms:
    with seen.autocast:
        logits = seen.network(seen.images)
    return Terms(seen.classify(logits), {})


def _apart(seen: _Seen) -> Terms:
    """Each domain moves its own statistics."""
    terms = _classified(seen)
    with target_statistics(seen.network), torch.no_grad(), seen.autocast:
        seen.network.features(seen.others)
    return terms


def _aligned(seen: _Seen) -> Terms:
    config, adapter = seen.adaptation.config, seen.network.adapter
    logits, target_logits, source, target = seen.together()
    strength = seen.weight(source, target)
    classification = seen.classify(logits)
    if config.method == "mmd":
        return _sum(classification, mmd_loss(source, target, widths=config.bandwidths), weight=strength)
    if config.method == "coral":
        return _sum(classification, coral_loss(source, target), weight=strength)
    source, target = (reverse_gradient(features, strength=strength) for features in (source, target))
    weights: dict[str, Tensor] = {}
    if config.method == "cdan":
        belief, target_belief = (one.detach().float().softmax(dim=1) for one in (logits, target_logits))
        source, target = adapter.map(source, belief), adapter.map(target, target_belief)
        weights = {"source_weights": entropy_weights(belief), "target_weights": entropy_weights(target_belief)}
    term, accuracy = domain_loss(adapter.discriminator, source, target, **weights)
    # The strength is in the reversed gradient: the discriminator itself learns at its own rate.
    terms = _sum(classification, term, weight=1.0)
    return Terms(terms.loss, terms.parts | {"adapt_weight": _scalar(strength, term), "domain_accuracy": accuracy})


def _unconfused(seen: _Seen) -> Terms:
    logits, target_logits, source, target = seen.together()
    term = mcc_loss(target_logits, temperature=seen.adaptation.config.temperature)
    return _sum(seen.classify(logits), term, weight=seen.weight(source, target))


def _moved(seen: _Seen) -> Terms:
    """Learn from source images and from the same moved to where the domain classifier takes them for the target's."""
    config, spec, network = seen.adaptation.config, seen.adaptation.spec, seen.network
    logits, _, source, target = seen.together()
    discriminator = network.adapter.discriminator
    telling, accuracy = domain_loss(discriminator, source.detach(), target.detach())

    def unlike_target(images: Tensor) -> Tensor:
        with seen.autocast:
            features = network.features(images)
        return softplus(-discriminator(features)).mean()

    mean, std = (torch.tensor(values, device=seen.images.device).view(-1, 1, 1) for values in (spec.mean, spec.std))
    network.eval()  # what moves an image must not move the norms
    moved = towards(
        seen.images,
        score=unlike_target,
        eps=config.eps / 255 / std,
        steps=config.steps,
        low=-mean / std,
        high=(1 - mean) / std,
    )
    network.train()
    with seen.autocast:
        moved_logits = network(moved)
    terms = _sum(seen.classify(logits), seen.classify(moved_logits), weight=seen.weight(source, target))
    return Terms(terms.loss + telling, terms.parts | {"domain_accuracy": accuracy})


def _sum(classification: Tensor, term: Tensor, *, weight: float | Tensor) -> Terms:
    parts = {"source_loss": classification.detach(), "target_loss": term.detach()}
    return Terms(classification + weight * term, parts | {"adapt_weight": _scalar(weight, term)})


def _scalar(value: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(value, device=like.device, dtype=torch.float32)
