"""The story of one self-supervised pre-training."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainable.config.pretrain import PretrainConfig
from trainable.config.trial import TrainConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.loader.batches import normalise
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.pretraining.images import PairLoader
from trainable.pretraining.resumable import (
    Standing,
    identity,
    restore_standing,
    save_standing,
    write_backbone,
)
from trainable.randomness import generator, seeded
from trainable.training.device import pick_device
from trainable.training.fit import DivergedError

if TYPE_CHECKING:
    from trainable.pretraining.methods import MoCo, SimCLR


@dataclass(frozen=True)
class PretrainEpoch:
    """One finished epoch.

    Metrics: ``train/loss``, nats; ``train/embedding_std``, see :func:`embedding_std`; ``train/lr`` of its last update.
    """

    number: int
    metrics: dict[str, float]


def pretrain_epochs(config: PretrainConfig, *, folder: Path) -> Iterator[PretrainEpoch]:
    """Pre-train a backbone on images alone into ``folder/backbone.safetensors``, which ``model.weights`` loads.

    Tells every epoch that is still to be trained once its state is in ``folder``. Labels are never read, and of a labelled data
    set only the images of the train split are seen. Goes on from the newest whole state in ``folder``, to the same weights as
    an unbroken run, bit for bit on a CPU. Raises UserError for data or weights that cannot be used, or where ``folder`` holds
    another training; DivergedError.
    """
    device = pick_device(TrialConfig(train=TrainConfig(device=config.device)))
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    loader = PairLoader(config, spec=spec, pin=device.type == "cuda")
    method = _create_method(config, spec=spec).to(device)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    of = identity(config, fingerprint=loader.pack.fingerprint)
    standing = restore_standing(folder, module=method, optimizer=optimizer, of=of)
    for number in range(standing.step + 1, config.epochs + 1):
        metrics = _train(method, optimizer, loader=loader, spec=spec, config=config, epoch=number)
        standing = Standing(number, (*standing.history, metrics))
        save_standing(folder, standing, module=method, optimizer=optimizer, of=of)
        yield PretrainEpoch(number, metrics)
    write_backbone(folder, method.backbone, spec=spec, of=of)


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation over a batch of each of the D numbers of the embeddings N×D, made unit length, on average.

    About 1/√D where they point everywhere, 0 where all images have one: collapse (Chen & He 2021, SimSiam, 4.1).
    """
    return normalize(embeddings, dim=1).std(dim=0).mean()


def _create_method(config: PretrainConfig, *, spec: InputSpec) -> "SimCLR | MoCo":
    try:
        from trainable.pretraining.methods import METHODS  # needs lightly, which nothing else does
    except ModuleNotFoundError as error:
        raise UserError(f"method: {config.method!r} needs lightly ({error}); pip install '.[ssl]'") from error
    network = create_network(
        TrialConfig(seed=config.seed, data=config.data, model=config.model), spec=spec, num_classes=2
    )
    with seeded(config.seed, "projection"):
        return METHODS[config.method](network.backbone, width=network.width, config=config)


def _train(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loader: PairLoader,
    spec: InputSpec,
    config: PretrainConfig,
    epoch: int,
) -> dict[str, float]:
    """One pass over the images; gives the epoch's metrics."""
    method.train()
    device = next(method.parameters()).device
    losses, spreads = [], []
    for index, images in enumerate(loader.epoch(epoch)):
        done = (epoch - 1 + index / loader.num_batches) / config.epochs
        rate = config.lr * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        normalised = normalise(images.to(device, non_blocking=True), spec)
        with (
            seeded(config.seed, "dropout", epoch, index, device=device),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.amp == "bf16"),
        ):
            contrast = method(normalised, order=generator(config.seed, "key order", epoch, index))
        optimizer.zero_grad(set_to_none=True)
        contrast.loss.backward()
        optimizer.step()
        losses.append(contrast.loss.detach())
        spreads.append(embedding_std(contrast.embeddings))
    loss = float(torch.stack(losses).double().mean())
    if not math.isfinite(loss):
        raise DivergedError(f"the loss became {loss} in epoch {epoch}")
    return {"train/loss": loss, "train/embedding_std": float(torch.stack(spreads).mean()), "train/lr": rate}
