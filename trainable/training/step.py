"""One update of the weights."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainable.adapt.methods import Terms
from trainable.training.anchor import Anchor
from trainable.training.losses import Loss

Classify = Callable[[Tensor], Tensor]


class Shown(NamedTuple):
    """What a forward pass sees: images N×C×S×S, labels N or mixed targets N×K, and ``others``, images of the target domain."""

    images: Tensor
    targets: Tensor
    others: Tensor | None = None


def update(
    network: nn.Module,
    *,
    batches: Sequence[Shown],
    optimizer: Optimizer,
    loss: Loss,
    scaler: torch.amp.GradScaler,
    autocast: AbstractContextManager[object],
    clip_norm: float | None,
    anchor: Anchor | None = None,
    adapted: Callable[[Shown, Classify], Terms] | None = None,
) -> dict[str, Tensor]:
    """Forward, loss, backward, pull to the anchor, clip, step over one effective batch; gives its mean `loss`, a scalar tensor.

    Several batches accumulate: their gradient is that of one batch holding all their images, but that batch norm in
    train mode, and what aligns domains, see each batch alone. With ``adapted`` the parts of the loss come beside it.
    """
    optimizer.zero_grad(set_to_none=True)
    start = torch.zeros((), device=batches[0].images.device)
    weight = sum((loss.weight(batch.targets) for batch in batches), start=start)
    found: dict[str, Tensor] = {}
    for batch in batches:
        share = len(batch.images) / sum(len(one.images) for one in batches)
        classify = partial(_mean_loss, loss, batch.targets, weight * share)
        if adapted is None:
            with autocast:
                logits = network(batch.images)
            terms = Terms(classify(logits), {})
        else:
            terms = adapted(batch, classify)
        scaler.scale(terms.loss * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": terms.loss.detach(), **terms.parts}.items():
            found[name] = found.get(name, start) + value * share
    if clip_norm is not None or anchor is not None:
        scaler.unscale_(optimizer)
    if anchor is not None:
        anchor.pull(network)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return found


def _mean_loss(loss: Loss, targets: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    return loss.sum(logits, targets) / weight
