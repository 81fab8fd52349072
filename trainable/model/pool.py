"""The features that a head is given of a backbone: one way to pool its maps for each value of ``model.pool``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan
from trainable.model.learned_pool import AttentivePool, GeneralisedMean
from trainable.model.positions import Layout, described, has_class_token, show_positions, show_token_mean
from trainable.model.stages import stage_ends

NUM_STAGES = 2  # the last ones
Description = list[int] | dict[str, Any] | None  # what a package says of a pool, by which it is made again


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A backbone that is to be pooled: its ``plan``, whether it ``is_cut`` behind a stage, how its last ``layout`` is asked for.

    ``name`` is the architecture's.
    """

    backbone: nn.Module
    plan: LayerPlan
    name: str
    is_cut: bool
    layout: Callable[[], Layout | None]


@dataclass(frozen=True)
class Pool:
    """How features are made: ``show`` lets a backbone give what is pooled, ``learned`` makes a pool with weights."""

    show: Callable[[Pooled], Description]
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
    indices = pooled_stages(pooled.backbone, plan=pooled.plan, name=pooled.name)
    pool_stages(pooled.backbone, indices=indices, is_cut=pooled.is_cut)
    return indices


def _positions(pooled: Pooled) -> dict[str, Any]:
    of_tokens = hasattr(pooled.backbone, "num_prefix_tokens")
    layout = Layout(axes="NLC" if of_tokens else "NCHW", num_prefix=0) if pooled.is_cut else pooled.layout()
    if layout is None:
        raise UserError(
            f"model.pool: {pooled.name!r} shows no map before it is pooled; leave it own, or take another model.name"
        )
    show_positions(pooled.backbone, **described(layout), is_cut=pooled.is_cut)
    return {"kind": "positions", **described(layout)}


def _token_mean(pooled: Pooled) -> dict[str, Any]:
    layout = pooled.layout() if has_class_token(pooled.backbone) else None
    if layout is None or not layout.num_prefix:
        raise UserError(
            f"model.pool: {pooled.name!r} has no class token beside its patches; leave it own, or take another model.name"
        )
    show_token_mean(pooled.backbone, num_prefix=layout.num_prefix)
    return {"kind": "token_mean", "num_prefix": layout.num_prefix}


POOLS = {
    "own": Pool(_own),
    "stages": Pool(_stages),
    "gem": Pool(_positions, learned=lambda _channels: GeneralisedMean()),
    "attentive": Pool(_positions, learned=AttentivePool),
    "token_mean": Pool(_token_mean),
}


def pooled_stages(backbone: nn.Module, *, plan: LayerPlan, name: str) -> list[int]:
    """Which of timm's intermediates end the last stages of a backbone. Raises UserError where it shows none.

    ``name`` is the architecture's.
    """
    ends = list(stage_ends(backbone, plan=plan).values()) if hasattr(backbone, "forward_intermediates") else []
    if not ends:
        raise UserError(f"model.pool: {name!r} shows no stages; leave it own, or take another model.name")
    return [end.index for end in ends[-NUM_STAGES:]]


def pool_stages(backbone: Any, *, indices: list[int], is_cut: bool) -> None:
    """Let a timm model give, beside its own features, mean and standard deviation over the image of these intermediates' maps.

    One that is cut has no features of its own but the mean of its last map, which is among these.
    The same lines stand in ``trainable.serving.classifier``, which may import nothing; a test holds both equal.
    """
    of_tokens = hasattr(backbone, "num_prefix_tokens")
    options = {"indices": indices, "output_fmt": "NLC" if of_tokens else "NCHW", "intermediates_only": is_cut}

    def forward(self: Any, images: Tensor) -> Tensor:
        outputs = self.forward_intermediates(images, **options)
        features, stages = ([], outputs) if is_cut else ([self.forward_head(outputs[0])], outputs[1])
        for maps in stages:
            values, axes = maps.float(), 1 if of_tokens else (2, 3)
            features += [values.mean(dim=axes), (values.var(dim=axes, correction=0) + 1e-6).sqrt()]
        return torch.cat(features, dim=1)

    kind = type(backbone)
    methods = {"forward": forward, "shows_stages": True, "pools_otherwise": True}
    backbone.__class__ = type(kind.__name__, (kind,), methods)
