"""Visual prompts: learned tokens in the blocks of a vision transformer, whose own weights rest.

They are own code: peft puts prompts into its models of language alone.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan
from trainable.model.layers import add_prompts
from trainable.randomness import seeded


def add_visual_prompts(backbone: Any, *, plan: LayerPlan, config: TrialConfig) -> LayerPlan:
    """Show each block that trains prompts of its own; gives the plan with them in the blocks' units.

    Deep prompts, which begin uniform in ±√(6/(C·P²+D)) for patches C×P×P and width D, as the paper's do (Jia et al. 2022), drawn
    by the trial's seed alone. Raises UserError for a network that is no vision transformer.
    """
    names = prompted_blocks(config, backbone=backbone, plan=plan)
    projection = backbone.patch_embed.proj.weight
    limit = math.sqrt(6 / (projection[0].numel() + len(projection)))
    with seeded(config.seed, "visual prompts"):
        for name in names:
            prompts = torch.empty(config.finetune.prompts, len(projection)).uniform_(-limit, limit)
            add_prompts(backbone.get_submodule(name), nn.Parameter(prompts))
    return plan.with_light({unit: [f"{name}.visual_prompts"] for name, unit in names.items()})


def prompted_blocks(config: TrialConfig, *, backbone: nn.Module, plan: LayerPlan) -> dict[str, int]:
    """Names of the blocks above ``freeze.depth``, with the index of their unit.

    Raises UserError where the network is not timm's plain vision transformer, whose blocks see tokens in any number and order.
    """
    if not isinstance(backbone, VisionTransformer):
        raise UserError(
            f"finetune.strategy: 'prompt' is of timm's VisionTransformer, which {config.model.name} is not; take another "
            "strategy or model.name"
        )
    frozen, unit_of = plan.frozen(config.freeze.depth), plan.unit_of()
    units = {f"blocks.{index}": _unit(f"blocks.{index}.", unit_of) for index in range(len(backbone.blocks))}
    return {name: unit for name, unit in units.items() if unit not in frozen}


def _unit(prefix: str, unit_of: Mapping[str, int]) -> int:
    return next(unit for name, unit in unit_of.items() if name.startswith(prefix))
