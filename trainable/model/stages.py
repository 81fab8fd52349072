"""Where the stages of a backbone end."""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from trainable.model.layer_plan import LayerPlan


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """The last of timm's intermediates in a stage: its ``index`` among them, its module's name, its channels, its unit."""

    index: int
    module: str
    channels: int
    unit: int


def stage_ends(backbone: nn.Module, *, plan: LayerPlan) -> dict[str, StageEnd]:
    """The end of each stage of the plan but the stem, ascending as timm gives them; empty where timm shows none."""
    modules = [name for name, _ in backbone.named_modules()]
    ends: dict[str, StageEnd] = {}
    for index, info in enumerate(getattr(cast(Any, backbone), "feature_info", ())):
        if info["module"] in modules:
            unit = _last_unit(info["module"], modules=modules, unit_of=plan.unit_of())
            ends[plan.units[unit].stage] = StageEnd(
                index=index, module=info["module"], channels=info["num_chs"], unit=unit
            )
    ordered = sorted(ends.items(), key=lambda end: end[1].index)
    return {stage: end for stage, end in ordered if stage != "stem"}


def averaged(values: Tensor, *, channels: int) -> Tensor:
    """The mean N×``channels`` over the image of a module's output, N×C×H×W, N×H×W×C or N×L×C."""
    axis = 1 if values.ndim == 4 and values.shape[1] == channels else values.ndim - 1
    others = [index for index in range(1, values.ndim) if index != axis]
    return values.mean(dim=others) if others else values


def _last_unit(module: str, *, modules: list[str], unit_of: dict[str, int]) -> int:
    """Index of the last unit with weights in a module; where it has none, an activation, of those before it."""
    inside = [unit for parameter, unit in unit_of.items() if parameter.startswith(f"{module}.")]
    before = set(modules[: modules.index(module)])
    up_to_it = [unit for parameter, unit in unit_of.items() if parameter.rpartition(".")[0] in before]
    return max(inside or up_to_it, default=0)
