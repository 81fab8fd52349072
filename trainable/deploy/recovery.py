"""Training after pruning, so that what is left makes up for what is gone."""

from dataclasses import dataclass, replace

import torch

from trainable.config.trial import (
    AdaptConfig,
    FinetuneConfig,
    FreezeConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrialConfig,
)
from trainable.errors import UserError
from trainable.model.network import Network
from trainable.training.setup import set_up
from trainable.training.trainer import create_trainer


@dataclass(frozen=True)
class Recovery:
    """``epochs`` over the training images, and the peak rate of AdamW for all layers alike, under a cosine to 0."""

    epochs: int = 3
    lr: float = 3e-4


def check_recoverable(config: TrialConfig) -> None:
    """UserError for networks adapted to a target domain, whose images the training after pruning does not see."""
    if config.adapt.method != "none":
        raise UserError(
            f"--prune: this network was adapted to a target domain (adapt.method: {config.adapt.method}), and training after "
            "pruning would undo that"
        )


def recover(network: Network, *, config: TrialConfig, recovery: Recovery) -> Network:
    """Train every layer of an altered network on the trial's images, views and loss; the same seed gives the same bits on a CPU.

    The last epoch is what counts: no image of another split is looked at.
    """
    training_config = recovery_config(config, recovery=recovery)
    setup = set_up(training_config)
    network = network.to(setup.device)
    if training_config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    trainer = create_trainer(replace(setup, network=network))
    for epoch in range(1, training_config.train.epochs + 1):
        for _ in trainer.updates(epoch):
            pass
    return network.cpu().eval()


def recovery_config(config: TrialConfig, *, recovery: Recovery) -> TrialConfig:
    """The trial's configuration with all layers training at one rate, from weights that are already there."""
    return TrialConfig.model_validate(
        {
            **config.model_dump(),
            "data": config.data.model_dump() | {"early_size": None, "early_epochs": 0, "prefix_gb": 0.0},
            "model": config.model.model_dump() | {"weights": "random"},
            "freeze": FreezeConfig().model_dump(),
            "finetune": FinetuneConfig(strategy="full").model_dump(),
            "optimizer": OptimizerConfig(lr=recovery.lr, weight_decay=config.optimizer.weight_decay).model_dump(),
            "lr_schedule": ScheduleConfig().model_dump(),
            "train": config.train.model_dump()
            | {"epochs": recovery.epochs, "amp": "off", "ema": 0.0, "ema_start": 0, "patience": None, "device": "auto"},
            "adapt": AdaptConfig().model_dump(),
        }
    )
