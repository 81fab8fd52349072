"""Parameter groups with absolute learning rates, over a schedule that is a function of the step."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from trainable.config import OptimizerConfig, ScheduleConfig
from trainable.model.network import Network


def create_optimizer(network: Network, *, config: OptimizerConfig) -> Optimizer:
    """An optimizer over every parameter of the network, frozen ones included.

    One group for each unit and decay, in the order of the plan, for the whole life of the trial: freezing only flips
    ``requires_grad``. A group's ``peak_lr`` is absolute. Biases, norms and what the backbone's ``no_weight_decay()``
    names are not decayed.
    """
    groups = parameter_groups(network, config=config)
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, betas=(config.momentum, 0.999))


def parameter_groups(network: Network, *, config: OptimizerConfig) -> list[dict[str, object]]:
    """Groups with ``name``, ``params``, ``lr``, ``peak_lr`` and ``weight_decay``."""
    parameters = dict(network.backbone.named_parameters())
    undecayed = _undecayed(network.backbone)
    rates = unit_rates(len(network.plan.units), config=config)
    groups: list[dict[str, object]] = []
    for unit, rate in zip(network.plan.units, rates, strict=True):
        named = {name: parameters[name] for name in unit.parameters}
        groups += _split(unit.name, named, lr=rate, config=config, undecayed=undecayed)
    return groups + _split("head", dict(network.head.named_parameters()), lr=config.lr, config=config, undecayed=set())


def unit_rates(num_units: int, *, config: OptimizerConfig) -> list[float]:
    """Peak rate of each unit: lr·backbone_multiplier·layer_decay^(n-i), the head counting as unit n (BEiT's rule)."""
    top = config.lr * config.backbone_multiplier
    return [top * config.layer_decay ** (num_units - index) for index in range(num_units)]


def schedule_factor(step: int, *, num_steps: int, warmup_steps: int, config: ScheduleConfig) -> float:
    """Share of the peak rate at update ``step`` (from 0): linear warm-up, then cosine to ``final`` at ``num_steps``."""
    if step < warmup_steps:
        return config.warmup_start + (1 - config.warmup_start) * step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_rates(optimizer: Optimizer, *, factor: float) -> None:
    """Set every group's rate to that share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def _split(
    name: str, named: dict[str, nn.Parameter], *, lr: float, config: OptimizerConfig, undecayed: set[str]
) -> list[dict[str, object]]:
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
