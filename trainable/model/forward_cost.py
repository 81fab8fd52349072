"""What a forward pass of a backbone takes, told by shapes alone."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainable.config.trial import TrialConfig
from trainable.model.backbone import create_backbone, input_spec


@dataclass(frozen=True)
class ForwardCost:
    """Billions of multiply-adds of one image of ``image_size`` pixels square, and the number of ``parameters``.

    Counted are matrix products, convolutions and attention, as the literature does; the classifier is left out.
    """

    gmacs: float
    parameters: int
    image_size: int


def forward_cost(config: TrialConfig) -> ForwardCost:
    """The cost of a trial's backbone at its image size. Nothing is computed or downloaded.

    Raises UserError for a backbone that cannot be built or cannot take images of that size.
    """
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    backbone, _ = create_backbone(config.model, spec=spec, generator_seed=0, device="meta")
    backbone.eval().requires_grad_(False)  # not no_grad(): the counter asks for the graph of attention pools
    with FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, len(spec.mean), spec.size, spec.size, device="meta"))
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return ForwardCost(counter.get_total_flops() / 2e9, parameters, spec.size)
