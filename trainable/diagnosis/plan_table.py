"""A backbone's layers as rows: what is frozen, what each unit's rate is."""

from dataclasses import dataclass

from trainable.config.trial import FreezeConfig, OptimizerConfig
from trainable.model.backbone import parameter_sizes, plan_of
from trainable.training.optimizer import unit_rates


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One unit: its stage, how many numbers it holds, whether it is frozen, its peak rate and its decay."""

    unit: str
    stage: str
    parameters: int
    is_frozen: bool
    lr: float
    weight_decay: float


def plan_rows(name: str, *, freeze: FreezeConfig, optimizer: OptimizerConfig) -> list[PlanRow]:
    """The units of a timm architecture from input to output; the head, which every trial makes anew, is not among them."""
    plan = plan_of(name)
    sizes = parameter_sizes(name)
    frozen = plan.frozen(freeze.depth)
    rates = unit_rates(len(plan.units), config=optimizer)
    return [
        PlanRow(
            unit=unit.name,
            stage=unit.stage,
            parameters=sum(sizes[key] for key in unit.parameters),
            is_frozen=index in frozen,
            lr=rates[index],
            weight_decay=optimizer.weight_decay,
        )
        for index, unit in enumerate(plan.units)
    ]
