"""The layer plan: any timm architecture as ordered units in canonical stages."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainable.config.techniques import STAGES
from trainable.errors import UserError

logger = logging.getLogger(__name__)
Depth = float | str | Sequence[str]  # of freezing: a share of the units, the last frozen stage, the stages that train


@dataclass(frozen=True)
class Unit:
    """A group of parameters that is frozen and given its rate as one; the smallest step of freeze depth."""

    name: str
    stage: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class LayerPlan:
    """The units of a backbone from input to output; together they hold every parameter but the classifier's once.

    ``fallback`` is true where timm has no grouping for the architecture, so that its children stand in as units; ``light`` are
    the parameters that are light adapters', of no pretrained layer.
    """

    units: tuple[Unit, ...]
    fallback: bool = False
    light: frozenset[str] = frozenset()

    def frozen(self, depth: Depth) -> frozenset[int]:
        """Indices of the frozen units for a ``freeze.depth``.

        A number freezes that share of the units, rounded down; a stage name everything up to its end; a list
        everything but the stages it names (Lee et al. 2023, surgical fine-tuning).
        """
        if isinstance(depth, int | float):
            if not 0 <= depth <= 1:
                raise UserError(f"freeze.depth: {depth} is not between 0 and 1")
            return frozenset(range(int(depth * len(self.units) + 1e-9)))
        for stage in [depth] if isinstance(depth, str) else depth:
            if stage not in STAGES:
                raise UserError(f"freeze.depth: unknown stage {stage!r}; stages are {', '.join(STAGES)}")
        if isinstance(depth, str):
            last = STAGES.index(depth)
            return frozenset(i for i, unit in enumerate(self.units) if STAGES.index(unit.stage) <= last)
        return frozenset(i for i, unit in enumerate(self.units) if unit.stage not in depth)

    def with_light(self, names: Mapping[int, Sequence[str]]) -> "LayerPlan":
        """The plan with light adapters' parameters, by the index of their unit, at the ends of these units."""
        units = tuple(
            replace(unit, parameters=(*unit.parameters, *names.get(index, ()))) for index, unit in enumerate(self.units)
        )
        return replace(self, units=units, light=self.light | {name for group in names.values() for name in group})

    def unit_of(self) -> dict[str, int]:
        """The unit's index by parameter name."""
        return {name: index for index, unit in enumerate(self.units) for name in unit.parameters}


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: batch, layer, group, instance or RMS norm, torch's or timm's."""
    if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
        return True
    num_direct = len(list(module.parameters(recurse=False)))
    return "norm" in type(module).__name__.lower() and num_direct == len(list(module.parameters()))


def make_plan(backbone: nn.Module) -> LayerPlan:
    """The plan of a timm model whose classifier has been taken off.

    What timm groups with the classifier is pretrained and stays in the backbone, as its last unit (MobileNetV3's
    ``conv_head``) or, a norm alone, in it (ConvNeXt's ``head.norm``).
    """
    groups = _timm_groups(backbone)
    fallback = groups is None
    if groups is None:
        groups = _children_groups(backbone)
        logger.warning("%s has no timm layer groups; its children are the units", type(backbone).__name__)
    groups = _with_their_norms(backbone, groups)
    names = [_common_name(group) for group in groups]
    stages = _stages_of(backbone, groups)
    units = (Unit(name, stage, tuple(group)) for name, stage, group in zip(names, stages, groups, strict=True))
    return LayerPlan(tuple(units), fallback=fallback)


def _timm_groups(backbone: nn.Module) -> list[list[str]] | None:
    if not hasattr(backbone, "group_matcher"):
        return None
    groups = group_parameters(backbone, backbone.group_matcher(coarse=False))  # type: ignore[operator]
    return [list(groups[key]) for key in sorted(groups)]


def _children_groups(backbone: nn.Module) -> list[list[str]]:
    """Children with parameters in order; a container of several gives its own children."""
    prefixes: list[str] = []
    for name, child in backbone.named_children():
        inner = list(child.named_children())
        if isinstance(child, nn.Sequential | nn.ModuleList) and len(inner) > 1:
            prefixes += [f"{name}.{sub}" for sub, _ in inner]
        else:
            prefixes.append(name)
    groups: dict[str, list[str]] = {}
    for name, _ in backbone.named_parameters():
        owner = next((prefix for prefix in prefixes if name.startswith(f"{prefix}.")), prefixes[0])
        groups.setdefault(owner, []).append(name)
    return [groups[prefix] for prefix in prefixes if prefix in groups]


def _with_their_norms(backbone: nn.Module, groups: list[list[str]]) -> list[list[str]]:
    """Groups of norm parameters alone joined to the layer before, so that no layer is cut from its norm."""
    norms = {name for name, module in backbone.named_modules() if is_norm(module)}
    joined: list[list[str]] = []
    for group in groups:
        if joined and all(name.rpartition(".")[0] in norms for name in group):
            joined[-1] = joined[-1] + group
        else:
            joined.append(group)
    return joined


def _common_name(group: Sequence[str]) -> str:
    """The longest module path that most of the group lies under: that of its first parameter, cut to the shared part."""
    parts = [name.split(".")[:-1] for name in group]
    first, shared = parts[0], []
    for index, part in enumerate(first):
        if sum(len(other) > index and other[index] == part for other in parts) < len(parts) / 2:
            break
        shared.append(part)
    return ".".join(shared or first) or group[0]


def _stages_of(backbone: nn.Module, groups: list[list[str]]) -> list[str]:
    """One of STAGES for each group, never going back.

    The first group is the stem. The rest is cut where the resolution halves (the last four of timm's
    ``feature_info``), or into four equal parts where it does not, as in a ViT, or where one module has several resolutions.
    """
    ends = _resolution_ends(backbone)
    if len(set(ends[-4:])) < 4:
        body = max(1, len(groups) - 1)
        return ["stem", *(STAGES[1 + index * 4 // body] for index in range(len(groups) - 1))]
    order = {name: position for position, (name, _) in enumerate(backbone.named_modules())}
    stages, reached = ["stem"], 1
    for group in groups[1:]:
        position = max(
            order[name.rpartition(".")[0]] for name in group[:2]
        )  # the first may be the network's own, a token
        reached = max(reached, 1 + sum(position > end for end in ends[-4:-1]))
        stages.append(STAGES[reached])
    return stages


def _resolution_ends(backbone: nn.Module) -> list[int]:
    """Position in ``named_modules`` where each resolution ends, coarsest last."""
    order = [name for name, _ in backbone.named_modules()]
    module_of = {info["reduction"]: info["module"] for info in getattr(backbone, "feature_info", None) or []}
    ends = []
    for module in module_of.values():
        inside = [position for position, name in enumerate(order) if name == module or name.startswith(f"{module}.")]
        if not inside:
            return []
        ends.append(max(inside))
    return ends
