"""Ends a backbone behind an earlier stage."""

from typing import cast

from torch import nn

from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan, Unit
from trainable.model.layers import cut_behind
from trainable.model.stages import stage_ends


def cut_at(backbone: nn.Module, *, plan: LayerPlan, stage: str, name: str) -> LayerPlan:
    """End a backbone behind a ``stage``, whose averaged maps N×F are its features; the plan of what is left of it.

    Parameters keep their names. The features are those that the probe of the stage sees. ``name`` is the architecture's.
    Raises UserError where it shows no such stage or cannot be cut.
    """
    index = end_of(backbone, plan=plan, stage=stage, name=name)
    cut_behind(backbone, index=index)
    left = {name for name, _ in backbone.named_parameters()}
    units = (Unit(unit.name, unit.stage, tuple(p for p in unit.parameters if p in left)) for unit in plan.units)
    return LayerPlan(tuple(unit for unit in units if unit.parameters), fallback=plan.fallback)


def end_of(backbone: nn.Module, *, plan: LayerPlan, stage: str, name: str) -> int:
    """Which of timm's intermediates ends a stage. Raises UserError where none does or the architecture cannot be cut."""
    if not hasattr(backbone, "forward_intermediates") or not hasattr(backbone, "prune_intermediate_layers"):
        raise UserError(
            f"model.until: {name!r} cannot be cut behind a stage; leave it null, or take another model.name"
        )
    ends = stage_ends(backbone, plan=plan)
    if stage not in ends:
        raise UserError(f"model.until: {name!r} shows no {stage!r}; there are {', '.join(ends) or 'none'}")
    return ends[stage].index


def is_cut(backbone: nn.Module) -> bool:
    """Whether a backbone ends before its last layers."""
    return cast(bool, getattr(backbone, "is_cut", False))
