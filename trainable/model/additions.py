"""What strategies put into a backbone whose own weights rest: the table of light adapters."""

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.bottlenecks import add_bottlenecks, chosen_blocks
from trainable.model.layer_plan import LayerPlan
from trainable.model.light_adapters import add_adapters, chosen_layers, require
from trainable.model.prompts import add_visual_prompts, prompted_blocks


class Add(Protocol):
    """Puts light adapters into a backbone and gives the plan with them; raises UserError where there is no place for one."""

    def __call__(self, backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> LayerPlan:
        """``spec``: the images that the backbone takes."""


class Check(Protocol):
    """Raises UserError where a strategy has no place for an adapter or lacks a library, told by shapes alone."""

    def __call__(self, backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> object:
        """``spec``: the images that the backbone takes."""


@dataclass(frozen=True)
class Addition:
    """What a strategy adds, and the look before it does."""

    add: Add
    check: Check


def _check_layers(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> None:
    require(config.finetune.strategy)
    chosen_layers(config, backbone=backbone, plan=plan)


def _check_blocks(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> None:
    chosen_blocks(config, backbone=backbone, plan=plan, spec=spec)


def _add_prompts(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> LayerPlan:
    return add_visual_prompts(backbone, plan=plan, config=config)


def _check_prompts(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> None:
    prompted_blocks(config, backbone=backbone, plan=plan)


ADDITIONS = {
    "lora": Addition(add=add_adapters, check=_check_layers),
    "dora": Addition(add=add_adapters, check=_check_layers),
    "adapter": Addition(add=add_bottlenecks, check=_check_blocks),
    "prompt": Addition(add=_add_prompts, check=_check_prompts),
}
