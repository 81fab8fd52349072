"""Terms of a loss that bring two domains together.

All of them compute in float32, also inside an autocast region: differences of nearly equal sums are what they are about.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainable.model.precision import full_precision

ROUNDING = 1e-6  # of the largest row: what float32 leaves of a squared distance of 0, to either side
SMALLEST = 1e-30  # divides without overflow in float32, and its inverse too


def reverse_gradient(features: Tensor, *, strength: float | Tensor) -> Tensor:
    """``features`` as they are, whose gradient g comes back as -strength·g (Ganin and Lempitsky 2015).

    What is below is trained against the loss above. A tensor ``strength`` has no dimensions and gets no gradient.
    """
    return cast(Tensor, _Reversed.apply(features, strength))


def domain_loss(
    discriminator: nn.Module,
    source: Tensor,
    target: Tensor,
    *,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """How badly the discriminator tells features N×D from M×D, and the share it tells right.

    Both give each domain half of the say, whatever N and M. The loss is the cross-entropy, nats, each domain's the mean
    with weights N and M: log 2 where nothing can be told. The share is unweighted and has no gradient; a logit of exactly
    0 says source.
    """
    logits = discriminator(torch.cat([source, target])).float()
    of_source, of_target = logits.split([len(source), len(target)])
    loss = _mean(softplus(of_source), weights=source_weights) + _mean(softplus(-of_target), weights=target_weights)
    right = (of_source <= 0).float().mean() + (of_target > 0).float().mean()
    return loss / 2, right.detach() / 2


def entropy_weights(probabilities: Tensor) -> Tensor:
    """Weights N of mean 1, without gradient, of predictions N×K: 1+exp(-H), so that certain ones count up to twice.

    With them CDAN is CDAN+E (Long et al. 2018).
    """
    with torch.no_grad(), full_precision(probabilities) as (probabilities,):
        entropies = -torch.xlogy(probabilities, probabilities).sum(dim=1)
        weights = 1 + torch.exp(-entropies)
        return weights / weights.mean()


def mmd_loss(source: Tensor, target: Tensor, *, widths: Sequence[float], bandwidth: float | None = None) -> Tensor:
    """Squared maximum mean discrepancy of features N×D and M×D, 0 for identical samples and at most 2.

    The biased estimate (Gretton et al. 2012, eq. 5) for the mean of the Gaussian kernels exp(-d²/(width·bandwidth)) (Long
    et al. 2015). ``bandwidth`` is a squared distance; None takes the median of those above 0 between images of both
    samples together, a constant to the gradient. Takes memory for (N+M)² numbers a width.
    """
    with full_precision(source, target) as (source, target):
        squared = _squared_distances(torch.cat([source, target]))
        unit = _median(squared) if bandwidth is None else bandwidth
        kernel = torch.stack([torch.exp(-squared / (width * unit)) for width in widths]).mean(dim=0)
        signs = torch.cat([_shares(source), -_shares(target)])
        return signs @ kernel @ signs


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """‖C_s-C_t‖²/(4D²), C the unbiased covariances D×D of features N×D and M×D (Sun and Saenko 2016).

    The means do not matter. Each domain needs two images at least.
    """
    with full_precision(source, target) as (source, target):
        difference = torch.cov(source.T) - torch.cov(target.T)
        return difference.square().sum() / (4 * source.shape[1] ** 2)


def mcc_loss(logits: Tensor, *, temperature: float) -> Tensor:
    """Minimum class confusion of the target's logits N×K: 0 to 1, averaged over classes (Jin et al. 2020).

    Of what all images together give to a class, weighted by :func:`entropy_weights` (constants to the gradient), the part
    that the same images give to other classes. ``temperature`` divides the logits; above 1 it makes small ones count. A
    class that no image is given is wholly confused, as it is in the limit.
    """
    with full_precision(logits) as (logits,):
        probabilities = torch.softmax(logits / temperature, dim=1)
        together = probabilities.T @ (entropy_weights(probabilities)[:, None] * probabilities)
        return 1 - (together.diagonal() / together.sum(dim=1).clamp(min=SMALLEST)).mean()


def ganin_strength(progress: float, *, gamma: float) -> float:
    """2/(1+exp(-γ·p))-1: from 0 at progress 0 towards 1, within 1e-4 of it at progress 1 for γ = 10 (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-gamma * progress)) - 1


def dynamic_strength(source: Tensor, target: Tensor, *, scale: float) -> Tensor:
    """sigmoid(scale·distance), without gradient: more strength the further apart the means of features N×D and M×D are.

    The distance is the root mean square over features of the means' difference, over the root mean square deviation of an
    image from the mean of its domain: neither D nor the features' scale changes it. Its limits: it lies between 0.5 and 1
    (which float32 reaches), so that it never switches a term off, not even between samples of one distribution, whose
    means too are some √(1/N+1/M) apart; it sees the means only; and being largest where the domains are furthest apart,
    it says nothing of whether the term brings them together.
    """
    with torch.no_grad(), full_precision(source, target) as (source, target):
        apart = (source.mean(dim=0) - target.mean(dim=0)).square().mean()
        within = torch.cat([source - source.mean(dim=0), target - target.mean(dim=0)]).square().mean()
        return torch.sigmoid(scale * (apart / within.clamp(min=SMALLEST)).sqrt())


def bounded_strength(term: Tensor, *, by: Tensor) -> Tensor:
    """min(1, by/term), without gradient: so much of a term, a scalar, that it counts for no more than another loss does.

    A term that is as small as can be where a network is sure of everything, as class confusion is, goes on making it surer once
    the labelled images ask for nothing more; so bounded it fades with what they ask for.
    """
    with torch.no_grad():
        return (by.float() / term.float().clamp(min=SMALLEST)).clamp(min=0, max=1)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float | Tensor) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -ctx.strength * gradients[0], None


def _mean(values: Tensor, *, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (weights * values).sum() / weights.sum()


def _squared_distances(rows: Tensor) -> Tensor:
    """N×N of rows N×D, centred first: what is far from 0 would lose its differences to rounding."""
    centred = rows - rows.mean(dim=0).detach()
    sizes = centred.square().sum(dim=1)
    squared = sizes[:, None] + sizes - 2 * centred @ centred.T
    return squared.masked_fill(squared < ROUNDING * sizes.max(), 0.0)


def _median(squared: Tensor) -> Tensor:
    """Of those above 0; 1 where there are none."""
    distances = squared.detach()
    return distances.masked_fill(distances == 0, math.nan).nanmedian().nan_to_num(nan=1.0)


def _shares(rows: Tensor) -> Tensor:
    return rows.new_full((len(rows),), 1 / len(rows))
