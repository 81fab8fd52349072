"""The contrastive methods, by lightly's heads and losses."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead, SimCLRProjectionHead
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from trainable.config.pretrain import PretrainConfig


class Contrast(NamedTuple):
    """The mean loss of a batch, nats, and the embeddings N×D it compared, neither normalised nor with a gradient."""

    loss: Tensor
    embeddings: Tensor


class SimCLR(nn.Module):
    """An image's two views attract, all other views of the batch repel (Chen et al. 2020, NT-Xent)."""

    def __init__(self, backbone: nn.Module, *, width: int, config: PretrainConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = SimCLRProjectionHead(width, config.projection_hidden, config.projection_width)
        self.contrast = NTXentLoss(temperature=config.temperature)

    def forward(self, images: Tensor, *, order: torch.Generator) -> Contrast:
        """The loss of 2N×C×S×S images, first views before second ones; nothing is drawn from ``order``."""
        first, second = self.projection(self.backbone(images)).float().chunk(2)
        return Contrast(_in_float32(self.contrast, first, second), first.detach())


class MoCo(nn.Module):
    """A view attracts its image's key and is repelled by a queue of older keys (He et al. 2020, MoCo v2's head).

    The network that makes the keys is a running average of the one that trains. Batch norm sees queries and keys in
    parts, the keys in another order, which does for one device what the paper's shuffling does for eight.
    """

    def __init__(self, backbone: nn.Module, *, width: int, config: PretrainConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = MoCoProjectionHead(width, config.projection_hidden, config.projection_width)
        self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.key_projection = copy.deepcopy(self.projection).requires_grad_(False)
        size = (config.queue_size, config.projection_width)
        self.contrast = NTXentLoss(temperature=config.temperature, memory_bank_size=size)
        self.momentum, self.norm_groups = config.momentum, config.norm_groups

    def forward(self, images: Tensor, *, order: torch.Generator) -> Contrast:
        """The loss of 2N×C×S×S images; moves the key network on, puts the N keys into the queue."""
        first, second = images.chunk(2)
        shuffled = torch.randperm(len(second), generator=order).to(images.device)
        with torch.no_grad():
            update_momentum(self.backbone, self.key_backbone, m=self.momentum)
            update_momentum(self.projection, self.key_projection, m=self.momentum)
            keys = self._in_groups(second[shuffled], lambda part: self.key_projection(self.key_backbone(part)))
            keys = keys[shuffled.argsort()]
        queries = self._in_groups(first, lambda part: self.projection(self.backbone(part)))
        return Contrast(_in_float32(self.contrast, queries, keys), queries.detach())

    def _in_groups(self, images: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([embed(part) for part in images.tensor_split(self.norm_groups)]).float()


def _in_float32(contrast: NTXentLoss, first: Tensor, second: Tensor) -> Tensor:
    """The loss outside mixed precision, whose eight bits are too few for similarities over a temperature."""
    with torch.autocast(first.device.type, enabled=False):
        loss: Tensor = contrast(first, second)
    return loss


METHODS: dict[str, type[SimCLR] | type[MoCo]] = {"simclr": SimCLR, "moco": MoCo}
