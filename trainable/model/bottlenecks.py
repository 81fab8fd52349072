"""Bottleneck adapters behind the blocks of a backbone, whose own weights rest.

They are own code: peft puts adapters of this kind into its models of language alone.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.chain import resting
from trainable.model.layer_plan import LayerPlan
from trainable.model.layers import BottleneckAdapter, add_adapter
from trainable.randomness import seeded

CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block by its ``name`` and the index of its ``unit``; what it gives has C ``channels``, ``of_maps`` as N×C×H×W."""

    name: str
    unit: int
    channels: int
    of_maps: bool


def add_bottlenecks(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> LayerPlan:
    """Put an adapter behind each block that trains; gives the plan with the adapters' parameters in the blocks' units.

    It begins as no change, with weights that depend on the trial's seed alone. Raises UserError where there is no block.
    """
    finetune = config.finetune
    added: dict[int, list[str]] = {}
    with seeded(config.seed, "bottleneck adapters"):
        for block in chosen_blocks(config, backbone=backbone, plan=plan, spec=spec):
            adapter = BottleneckAdapter(
                block.channels, width=finetune.bottleneck, of_maps=block.of_maps, dropout=finetune.adapter_dropout
            )
            add_adapter(backbone.get_submodule(block.name), adapter)
            added[block.unit] = [f"{block.name}.bottleneck_adapter.{name}" for name, _ in adapter.named_parameters()]
    return plan.with_light(added)


def chosen_blocks(config: TrialConfig, *, backbone: nn.Module, plan: LayerPlan, spec: InputSpec) -> tuple[Block, ...]:
    """The blocks above ``freeze.depth`` that give one tensor of tokens or maps. Raises UserError where there are none.

    A unit's block is the last module with layers inside that holds what is of this unit alone; the stem has none. What it gives
    is told by a pass of one image of ``spec``.
    """
    units = _blocks(backbone, plan=plan, frozen=plan.frozen(config.freeze.depth))
    shapes = _output_shapes(backbone, names=list(units), spec=spec)
    if not shapes:
        raise UserError(
            f"finetune.strategy: {config.model.name} has no blocks above freeze.depth: {config.freeze.depth} that 'adapter' "
            "could stand behind; take another strategy or model.name"
        )
    channels_last = any(len(shape) == 4 and shape[1] == shape[2] != shape[3] for shape in shapes.values())
    blocks = []
    for name, shape in shapes.items():
        # The images are square: of a map the two sides that are alike are those of the image.
        of_maps = len(shape) == 4 and shape[2] == shape[3] and (shape[1] != shape[2] or not channels_last)
        channels = shape[1 if of_maps else -1]
        blocks.append(Block(name=name, unit=units[name], channels=channels, of_maps=of_maps))
    return tuple(blocks)


def _blocks(backbone: nn.Module, *, plan: LayerPlan, frozen: frozenset[int]) -> dict[str, int]:
    """The unit by the name of its block, of those that train and have one."""
    unit_of, blocks = plan.unit_of(), dict[int, str]()
    for name, module in backbone.named_modules():
        # One that two modules hold has another name too, which the plan does not know; it stays as it is.
        units = (
            {unit_of.get(f"{name}.{parameter}", -1) for parameter, _ in module.named_parameters()} if name else set()
        )
        if len(units) != 1 or -1 in units or isinstance(module, CONTAINERS) or not _has_layers(module):
            continue
        (unit,) = units
        is_inside = unit in blocks and name.startswith(f"{blocks[unit]}.")
        if not is_inside and unit not in frozen and plan.units[unit].stage != "stem":
            blocks[unit] = name
    return {name: unit for unit, name in blocks.items()}


def _has_layers(module: nn.Module) -> bool:
    return any(True for child in module.children() for _ in child.parameters())


def _output_shapes(backbone: nn.Module, *, names: list[str], spec: InputSpec) -> dict[str, torch.Size]:
    """What these modules give, of those that are called once and give one tensor N×L×C, N×C×H×W or N×H×W×C."""
    outputs: dict[str, list[object]] = {name: [] for name in names}

    def take(_module: nn.Module, _inputs: object, output: object, *, name: str) -> None:
        outputs[name].append(output)

    hooks = [backbone.get_submodule(name).register_forward_hook(partial(take, name=name)) for name in names]
    try:
        with torch.no_grad(), resting([backbone]):
            device = next(backbone.parameters()).device
            backbone(torch.zeros(1, len(spec.mean), spec.size, spec.size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: given[0].shape
        for name, given in outputs.items()
        if len(given) == 1 and isinstance(given[0], Tensor) and given[0].ndim in (3, 4)
    }
