"""Ends a backbone behind an earlier stage."""

import inspect
from typing import Any, cast

from torch import Tensor, nn

from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan, Unit
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


def cut_behind(backbone: Any, *, index: int) -> None:
    """End a timm model behind its intermediate ``index``; from then on it gives that one's mean over the image, N×F.

    The same lines stand in ``trainable.serving.classifier``, which may import nothing; a test holds both equal.
    """
    stops = "stop_early" in inspect.signature(backbone.forward_intermediates).parameters
    of_tokens = hasattr(backbone, "num_prefix_tokens")  # as a map their shape would be asked of the images themselves
    options = {"indices": [index], "output_fmt": "NLC" if of_tokens else "NCHW", "intermediates_only": True}
    options |= {"stop_early": True} if stops else {}

    def last_map(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.forward_intermediates(images, **options)[-1]
        return maps

    def forward(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.last_map(images)
        return maps.mean(dim=1 if of_tokens else (2, 3))

    backbone.prune_intermediate_layers([index], prune_norm=True, prune_head=True)
    backbone.feature_info = backbone.feature_info[: index + 1]
    kind = type(backbone)
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "last_map": last_map, "is_cut": True})


def is_cut(backbone: nn.Module) -> bool:
    """Whether a backbone ends before its last layers."""
    return cast(bool, getattr(backbone, "is_cut", False))
