"""Methods that change images of the source to look like the target's: adversarial, fda."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trainable.adapt.losses import domain_loss
from trainable.adapt.perturb import fourier_swapped, towards
from trainable.adapt.seen import Seen, Terms
from trainable.config.trial import AdaptConfig
from trainable.randomness import generator


def adversarial(seen: Seen) -> Terms:
    """Learn from source images and from the same moved to where the domain classifier takes them for the target's."""
    logits, _, source, target = seen.together()
    telling, accuracy = domain_loss(seen.network.adapter.discriminator, source.detach(), target.detach())
    moved = _moved(seen)
    with seen.autocast:
        moved_logits = seen.network(moved)
    terms = seen.minimise(seen.classify(logits), seen.classify(moved_logits), source=source, target=target)
    return Terms(terms.loss + telling, terms.parts | {"domain_accuracy": accuracy})


def _moved(seen: Seen) -> Tensor:
    network, spec = seen.network, seen.spec

    def unlike_target(images: Tensor) -> Tensor:
        with seen.autocast:
            features = network.features(images)
        return softplus(-network.adapter.discriminator(features)).mean()

    mean, std = (torch.tensor(values, device=seen.images.device).view(-1, 1, 1) for values in (spec.mean, spec.std))
    network.eval()  # what moves an image must not move the norms
    moved = towards(
        seen.images,
        score=unlike_target,
        eps=seen.config.eps / 255 / std,
        steps=seen.config.steps,
        low=-mean / std,
        high=(1 - mean) / std,
    )
    network.train()
    return moved


def fda(images: Tensor, others: Tensor, *, config: AdaptConfig, strength: float, seed: tuple[int, ...]) -> Tensor:
    """Pixels N×C×S×S of the source, a share ``strength`` of them with the target's low frequencies (Yang and Soatto 2020)."""
    chosen = torch.rand(len(images), generator=generator(seed[0], "fourier", *seed[1:])) < strength
    where = chosen.to(images.device).view(-1, 1, 1, 1)
    return torch.where(where, fourier_swapped(images, others, beta=config.beta), images.float())
