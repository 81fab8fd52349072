"""What trains in which epoch: one state machine, a pure function of (configuration, layer plan, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainable.config.trial import TrialConfig, classifier_epochs
from trainable.errors import UserError
from trainable.model.layer_plan import STAGES, LayerPlan

Within = Literal["nothing", "norms", "biases"]


@dataclass(frozen=True)
class Phase:
    """How an epoch is trained.

    ``frozen`` are the units at rest, ``within`` what trains in them all the same, ``moving_norms`` whether their norm
    layers' statistics follow the images; with ``still_norms`` those of no layer do. ``balanced`` draws every class
    equally often. ``first`` and ``last`` are the epochs between which the learning rate runs its whole course; the head
    is made anew at the start of ``first`` where ``new_head``.
    """

    frozen: frozenset[int]
    within: Within
    moving_norms: bool
    still_norms: bool
    balanced: bool
    first: int
    last: int
    new_head: bool


def phase(config: TrialConfig, *, plan: LayerPlan, epoch: int) -> Phase:
    """The phase that ``epoch``, from 1, belongs to. Raises UserError for a strategy that this plan leaves nothing to do."""
    strategy, second = config.finetune.strategy, classifier_epochs(config)
    everything = frozenset(range(len(plan.units)))
    if second and epoch > config.train.epochs - second:
        first = config.train.epochs - second + 1
        return Phase(everything, "nothing", False, False, True, first, config.train.epochs, True)
    frozen = _frozen(config, plan=plan, epoch=epoch)
    within: Within = "norms" if config.freeze.bn == "train_all" else "nothing"
    moving = config.freeze.bn != "eval"
    if strategy == "norm_only":
        within, moving = "norms", True
    if strategy == "bias_only":
        within = "biases"
    # A solved head is for the features as they are; a batch's own statistics would give it others.
    still = strategy == "lp_ft" and not moving
    return Phase(frozen, within, moving, still, False, 1, config.train.epochs - second, False)


def phases(config: TrialConfig, *, plan: LayerPlan, until: int) -> Iterator[Phase]:
    """The phases of the epochs 1 to ``until``, each once."""
    known: set[Phase] = set()
    for epoch in range(1, until + 1):
        one = phase(config, plan=plan, epoch=epoch)
        if one not in known:
            known.add(one)
            yield one


def thaw_epochs(config: TrialConfig, *, plan: LayerPlan) -> dict[str, int]:
    """The first epoch in which ``gradual`` trains each stage; stages that ``freeze.depth`` keeps frozen are not in it.

    Raises UserError where no stage is left to thaw, or ``finetune.schedule`` names one that the backbone does not have.
    """
    kept = plan.frozen(config.freeze.depth)
    stages = [stage for stage in STAGES if any(u.stage == stage and i not in kept for i, u in enumerate(plan.units))]
    schedule = config.finetune.schedule
    if not stages or len(plan.units) == 1:
        raise UserError(
            "finetune.strategy: 'gradual' has nothing to thaw step by step in this backbone at this freeze.depth"
        )
    if schedule is None:
        order = stages if config.finetune.order == "bottom_up" else stages[::-1]
        return {stage: 1 + (index + 1) * config.finetune.every for index, stage in enumerate(order)}
    for stage in schedule:
        if stage not in stages:
            raise UserError(f"finetune.schedule: no stage {stage!r} is left to thaw; there are {', '.join(stages)}")
    return {stage: schedule[stage] for stage in stages if stage in schedule}


def _frozen(config: TrialConfig, *, plan: LayerPlan, epoch: int) -> frozenset[int]:
    strategy = config.finetune.strategy
    if strategy in ("full", "scratch"):
        return frozenset()
    if strategy in ("linear_probe", "norm_only", "bias_only"):
        return plan.frozen(1.0)
    if strategy == "surgical":
        return plan.frozen(config.finetune.trainable)
    kept = plan.frozen(config.freeze.depth)
    if strategy == "gradual":
        thawed = {stage for stage, first in thaw_epochs(config, plan=plan).items() if epoch >= first}
        return kept | {index for index, unit in enumerate(plan.units) if unit.stage not in thawed}
    return kept
