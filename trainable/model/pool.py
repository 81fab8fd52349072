"""The features that a head is given of a backbone: one way to pool its maps for each value of ``model.pool``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan
from trainable.model.layers import AttentivePool, GeneralisedMean
from trainable.model.positions import Layout, described, has_class_token, shows_tokens
from trainable.model.stages import stage_ends

NUM_STAGES = 2  # the last ones
Description = (
    list[int] | dict[str, Any] | None
)  # what a package says of a pool, by which ``layers.show_pooled`` makes it


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A backbone that is to be pooled: its ``plan``, whether it ``is_cut`` behind a stage, how its last ``layout`` is asked for.

    ``name`` is the architecture's, ``num_blocks`` how many of its last blocks are pooled where blocks are.
    """

    backbone: nn.Module
    plan: LayerPlan
    name: str
    is_cut: bool
    num_blocks: int
    layout: Callable[[], Layout | None]


@dataclass(frozen=True)
class Pool:
    """How features are made: ``describe`` says what of a backbone is pooled, ``learned`` makes a pool with weights."""

    describe: Callable[[Pooled], Description]
    learned: Callable[[int], nn.Module] | None = None  # for C channels


def pools_otherwise(backbone: nn.Module) -> bool:
    """Whether the features of a backbone are not its own pooled ones, or not these alone."""
    return cast(bool, getattr(backbone, "pools_otherwise", False))


def shows_stages(backbone: nn.Module) -> bool:
    """Whether the features of a backbone are those of its stages too."""
    return cast(bool, getattr(backbone, "shows_stages", False))


def shows_positions(backbone: nn.Module) -> bool:
    """Whether a backbone gives positions N×L×C that are still to be pooled."""
    return cast(bool, getattr(backbone, "shows_positions", False))


def _own(_pooled: Pooled) -> None:
    return None


def _stages(pooled: Pooled) -> list[int]:
    return pooled_stages(pooled.backbone, plan=pooled.plan, name=pooled.name)


def _positions(pooled: Pooled) -> dict[str, Any]:
    of_tokens = hasattr(pooled.backbone, "num_prefix_tokens")
    layout = Layout(axes="NLC" if of_tokens else "NCHW", num_prefix=0) if pooled.is_cut else pooled.layout()
    if layout is None:
        raise UserError(
            f"model.pool: {pooled.name!r} shows no map before it is pooled; leave it own, or take another model.name"
        )
    return {"kind": "positions", **described(layout)}


def _token_mean(pooled: Pooled) -> dict[str, Any]:
    layout = pooled.layout() if has_class_token(pooled.backbone) else None
    if layout is None or not layout.num_prefix:
        raise UserError(
            f"model.pool: {pooled.name!r} has no class token beside its patches; leave it own, or take another model.name"
        )
    return {"kind": "token_mean", "num_prefix": layout.num_prefix}


def _blocks(pooled: Pooled) -> dict[str, Any]:
    backbone, count = pooled.backbone, pooled.num_blocks
    layout = pooled.layout() if has_class_token(backbone) and shows_tokens(backbone) else None
    if layout is None or not layout.num_prefix or len(cast(Any, backbone).feature_info) < count:
        raise UserError(
            f"model.pool: {pooled.name!r} shows no class token behind each of its last {count} blocks; leave it own, or take "
            "another model.name"
        )
    return {"kind": "blocks", "num_blocks": count, "num_prefix": layout.num_prefix}


POOLS = {
    "own": Pool(_own),
    "stages": Pool(_stages),
    "gem": Pool(_positions, learned=lambda _channels: GeneralisedMean()),
    "attentive": Pool(_positions, learned=AttentivePool),
    "token_mean": Pool(_token_mean),
    "blocks": Pool(_blocks),
}


def pooled_stages(backbone: nn.Module, *, plan: LayerPlan, name: str) -> list[int]:
    """Which of timm's intermediates end the last stages of a backbone. Raises UserError where it shows none.

    ``name`` is the architecture's.
    """
    ends = list(stage_ends(backbone, plan=plan).values()) if hasattr(backbone, "forward_intermediates") else []
    if not ends:
        raise UserError(f"model.pool: {name!r} shows no stages; leave it own, or take another model.name")
    return [end.index for end in ends[-NUM_STAGES:]]
