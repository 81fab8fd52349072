"""Parameter groups with absolute learning rates, and the update rule over them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

from trainable.config.trial import OptimizerConfig
from trainable.model.light_adapters import magnitudes
from trainable.model.network import Network

Groups = list[dict[str, Any]]


def create_optimizer(network: Network, *, config: OptimizerConfig) -> Optimizer:
    """An optimizer over every parameter of the network, frozen ones included.

    One group for each unit and decay, in the order of the plan, for the whole life of the trial: freezing only flips
    ``requires_grad``. A group's ``peak_lr`` is absolute. Biases, norms, DoRA's magnitudes and what the backbone's
    ``no_weight_decay()`` names are not decayed.
    """
    return UPDATE_RULES[config.name](parameter_groups(network, config=config), config)


def parameter_groups(network: Network, *, config: OptimizerConfig) -> Groups:
    """Groups with ``name``, ``params``, ``lr``, ``peak_lr`` and ``weight_decay``."""
    parameters = dict(network.backbone.named_parameters())
    undecayed = _undecayed(network.backbone) | magnitudes(network.plan)
    rates = unit_rates(len(network.plan.units), config=config)
    groups: Groups = []
    for unit, rate in zip(network.plan.units, rates, strict=True):
        named = {name: parameters[name] for name in unit.parameters}
        groups += _split(unit.name, named, lr=rate, config=config, undecayed=undecayed)
    for name, module in (("head", network.head), ("pool", network.pool), ("adapter", network.adapter)):
        if module is None:
            continue
        groups += _split(name, dict(module.named_parameters()), lr=config.lr, config=config, undecayed=set())
    return groups


def unit_rates(num_units: int, *, config: OptimizerConfig) -> list[float]:
    """Peak rate of each unit: lr·backbone_multiplier·layer_decay^(n-i), the head counting as unit n (BEiT's rule)."""
    top = config.lr * config.backbone_multiplier
    return [top * config.layer_decay ** (num_units - index) for index in range(num_units)]


def set_rates(optimizer: Optimizer, *, factor: float) -> None:
    """Set every group's rate to that share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


@contextmanager
def of_trainable(optimizer: Optimizer) -> Iterator[None]:
    """Inside, an update passes by the groups in which nothing trains, which it would leave as they are."""
    every = optimizer.param_groups
    optimizer.param_groups = [group for group in every if any(parameter.requires_grad for parameter in group["params"])]
    try:
        yield
    finally:
        optimizer.param_groups = every


def _split(
    name: str, named: dict[str, nn.Parameter], *, lr: float, config: OptimizerConfig, undecayed: set[str]
) -> Groups:
    plain = [
        key for key, parameter in named.items() if parameter.ndim <= 1 or key.endswith(".bias") or key in undecayed
    ]
    decayed = [key for key in named if key not in plain]
    return [
        {"name": group, "params": [named[key] for key in keys], "lr": lr, "peak_lr": lr, "weight_decay": decay}
        for group, keys, decay in ((name, decayed, config.weight_decay), (f"{name}, undecayed", plain, 0.0))
        if keys
    ]


def _undecayed(backbone: nn.Module) -> set[str]:
    """Names of ``no_weight_decay()``: position embeddings, class tokens."""
    return set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()  # type: ignore[operator]


def _sgd(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=_uses_nesterov(config), fused=True)


def _adam(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.Adam(groups, betas=(config.momentum, 0.999), fused=True)


def _adamw(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(groups, betas=(config.momentum, 0.999), fused=True)


def _lamb(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return _timms("lamb", groups, lr=config.lr, betas=(config.momentum, 0.999))


def _lion(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return _timms("lion", groups, lr=config.lr, betas=(config.momentum, 0.99))  # Chen et al. 2023


def _muon(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return _timms("muon", groups, lr=config.lr, momentum=config.momentum, nesterov=_uses_nesterov(config))


def _uses_nesterov(config: OptimizerConfig) -> bool:
    return config.nesterov and config.momentum > 0


def _timms(name: str, groups: Groups, **options: Any) -> Optimizer:
    made: Optimizer = create_optimizer_v2(groups, opt=name, **options)
    return made


UPDATE_RULES: dict[str, Callable[[Groups, OptimizerConfig], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
    "lamb": _lamb,
    "lion": _lion,
    "muon": _muon,
}
