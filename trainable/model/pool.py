"""Features of several stages beside a backbone's own pooled ones."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from trainable.errors import UserError
from trainable.model.layer_plan import LayerPlan
from trainable.model.stages import stage_ends

NUM_STAGES = 2  # the last ones


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
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "shows_stages": True})


def shows_stages(backbone: nn.Module) -> bool:
    """Whether the features of a backbone are those of its stages too."""
    return cast(bool, getattr(backbone, "shows_stages", False))
