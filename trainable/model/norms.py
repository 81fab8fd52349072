"""Batch norms' statistics: taken anew from images, and kept apart for the domain to adapt to."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

OF_TARGET = {"running_mean": "target_mean", "running_var": "target_var", "num_batches_tracked": "target_batches"}


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics, in the order of the module tree."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]


def recompute_batch_norm(network: nn.Module, batches: Iterable[Tensor], *, every: bool = False) -> None:
    """Set the batch norms' statistics to the mean of those of the batches of normalised images N×C×S×S.

    An average of weights, or another domain, has other activations than the statistics say (Izmailov et al. 2018, Li et al.
    2018). Without ``every`` only norms that move in training are touched; in order and with everything else in eval mode,
    so that the same batches give the same. Leaves the network in eval mode.
    """
    network.train()
    norms = [norm for norm in batch_norms(network) if every or norm.training]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # a cumulative average; not train(), which reaches dropout inside
    with torch.no_grad():
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def add_target_statistics(network: nn.Module) -> None:
    """Give every batch norm a second set of statistics, at first equal to the first; saved with the network's buffers."""
    for norm in batch_norms(network):
        for name, of_target in OF_TARGET.items():
            norm.register_buffer(of_target, getattr(norm, name).clone())


@contextmanager
def target_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, the batch norms use and move the target's statistics, where they have any."""
    norms = [norm for norm in batch_norms(network) if hasattr(norm, "target_mean")]
    _swap(norms)
    try:
        yield
    finally:
        _swap(norms)


def _swap(norms: list[_BatchNorm]) -> None:
    for norm in norms:
        for name, of_target in OF_TARGET.items():
            first, second = getattr(norm, name), getattr(norm, of_target)
            setattr(norm, name, second)
            setattr(norm, of_target, first)
