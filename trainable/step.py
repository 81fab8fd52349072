"""One update of the weights."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainable.anchor import Anchor
from trainable.losses import CrossEntropy


def update(
    network: nn.Module,
    *,
    batches: Sequence[tuple[Tensor, Tensor]],
    optimizer: Optimizer,
    loss: CrossEntropy,
    scaler: torch.amp.GradScaler,
    autocast: AbstractContextManager[object],
    clip_norm: float | None,
    anchor: Anchor | None = None,
) -> Tensor:
    """Forward, loss, backward, pull to the anchor, clip, step over one effective batch; gives its mean loss, a scalar tensor.

    Several batches accumulate: their gradient is that of one batch holding all their images, but that batch norm in
    train mode sees each batch alone.
    """
    optimizer.zero_grad(set_to_none=True)
    weight = sum((loss.weight(targets) for _, targets in batches), start=torch.zeros((), device=batches[0][0].device))
    total = torch.zeros_like(weight)
    for images, targets in batches:
        with autocast:
            logits = network(images)
        value = loss.sum(logits, targets) / weight
        scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        total += value.detach()
    if clip_norm is not None or anchor is not None:
        scaler.unscale_(optimizer)
    if anchor is not None:
        anchor.pull(network)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return total
