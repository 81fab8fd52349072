"""What trains in which epoch: one state machine, a pure function of (configuration, layer plan, epoch)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from trainable.config.techniques import STAGES
from trainable.config.trial import TrialConfig, classifier_epochs
from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan

Within = Literal["nothing", "norms", "biases"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How an epoch is trained.

    ``frozen`` are the units at rest, ``within`` what trains in them all the same, ``moving_norms`` whether their norm
    layers' statistics follow the images; with ``still_norms`` those of no layer do. ``balanced`` draws every class
    equally often. ``first`` and ``last`` are the epochs between which the learning rate runs its whole course; the head
    is made anew at the start of ``first`` where ``new_head``. ``beside`` is what trains of the other units beside light
    adapters, None where all of them does.
    """

    frozen: frozenset[int]
    within: Within
    moving_norms: bool
    still_norms: bool
    balanced: bool
    first: int
    last: int
    new_head: bool
    beside: Within | None = None


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What trains when.

    ``frozen`` gives the units at rest in an epoch, ``within`` what trains in them whatever ``freeze.bn`` says, ``moves_norms``
    whether their norms' statistics do. ``from_weights`` is False for one that begins from random weights, ``solves_head`` True
    for one whose head begins as the probe's solution on the features as they are, ``adapts`` for one that trains light adapters
    in layers whose own weights rest; those that cannot be taken into these layers are ``served`` with them.
    """

    frozen: Callable[[TrialConfig, LayerPlan, int], frozenset[int]]
    within: Within | None = None
    moves_norms: bool = False
    from_weights: bool = True
    solves_head: bool = False
    adapts: bool = False
    served: bool = False


def phase(config: TrialConfig, *, plan: LayerPlan, epoch: int) -> Phase:
    """The phase that ``epoch``, from 1, belongs to. Raises UserError for a strategy that this plan leaves nothing to do."""
    strategy, second = STRATEGIES[config.finetune.strategy], classifier_epochs(config)
    everything = frozenset(range(len(plan.units)))
    if second and epoch > config.train.epochs - second:
        return Phase(
            frozen=everything,
            within="nothing",
            moving_norms=False,
            still_norms=False,
            balanced=True,
            first=config.train.epochs - second + 1,
            last=config.train.epochs,
            new_head=True,
        )
    moving = strategy.moves_norms or config.freeze.bn != "eval"
    beside = config.finetune.beside if strategy.adapts else None
    return Phase(
        frozen=strategy.frozen(config, plan, epoch),
        within=strategy.within or ("norms" if config.freeze.bn == "train_all" else "nothing"),
        moving_norms=moving,
        # A solved head is for the features as they are; a batch's own statistics would give it others. Of adapted layers the
        # norms rest like all else, unless they are asked for.
        still_norms=(strategy.solves_head or beside in ("nothing", "biases")) and not moving,
        balanced=False,
        first=1,
        last=config.train.epochs - second,
        new_head=False,
        beside=beside,
    )


def phases(config: TrialConfig, *, plan: LayerPlan, until: int) -> Iterator[Phase]:
    """The phases of the epochs 1 to ``until``, each once."""
    earlier: set[Phase] = set()
    for epoch in range(1, until + 1):
        current = phase(config, plan=plan, epoch=epoch)
        if current not in earlier:
            earlier.add(current)
            yield current


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


def _none(_config: TrialConfig, _plan: LayerPlan, _epoch: int) -> frozenset[int]:
    return frozenset()


def _whole_backbone(_config: TrialConfig, plan: LayerPlan, _epoch: int) -> frozenset[int]:
    return plan.frozen(1.0)


def _by_depth(config: TrialConfig, plan: LayerPlan, _epoch: int) -> frozenset[int]:
    return plan.frozen(config.freeze.depth)


def _all_but_chosen_stages(config: TrialConfig, plan: LayerPlan, _epoch: int) -> frozenset[int]:
    return plan.frozen(config.finetune.trainable)


def _not_yet_thawed(config: TrialConfig, plan: LayerPlan, epoch: int) -> frozenset[int]:
    thawed = {stage for stage, first in thaw_epochs(config, plan=plan).items() if epoch >= first}
    kept = plan.frozen(config.freeze.depth)
    return kept | {index for index, unit in enumerate(plan.units) if unit.stage not in thawed}


STRATEGIES = {
    "partial": Strategy(frozen=_by_depth),
    "full": Strategy(frozen=_none),
    "scratch": Strategy(frozen=_none, from_weights=False),
    "linear_probe": Strategy(frozen=_whole_backbone),
    "norm_only": Strategy(frozen=_whole_backbone, within="norms", moves_norms=True),
    "bias_only": Strategy(frozen=_whole_backbone, within="biases"),
    "surgical": Strategy(frozen=_all_but_chosen_stages),
    "gradual": Strategy(frozen=_not_yet_thawed),
    "lp_ft": Strategy(frozen=_by_depth, solves_head=True),
    "two_stage": Strategy(frozen=_by_depth),  # until its classifier_epochs
    "lora": Strategy(frozen=_by_depth, adapts=True),
    "dora": Strategy(frozen=_by_depth, adapts=True),
    "adapter": Strategy(frozen=_by_depth, adapts=True, served=True),
    "prompt": Strategy(frozen=_by_depth, adapts=True, served=True),
}
