"""What training moves: a network and all that a checkpoint holds beside it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainable.config.trial import TrialConfig
from trainable.metrics import epochs_waited
from trainable.model.head import create_head
from trainable.model.network import Network
from trainable.model.phase import phase
from trainable.model.precision import used_amp
from trainable.training.checkpoint import Counters, load_checkpoint, save_checkpoint
from trainable.training.optimizer import create_optimizer
from trainable.training.setup import Setup


@dataclass(kw_only=True)
class State:
    """The state of a trial between two epochs.

    ``average`` is the running average of the weights, None where ``train.ema`` is 0; ``epoch`` is the last one that is
    finished, 0 before the first; ``history`` has the value of ``train.metric`` of each.
    """

    config: TrialConfig
    network: Network
    optimizer: Optimizer
    average: AveragedModel | None
    scaler: torch.amp.GradScaler
    epoch: int = 0
    history: dict[int, float] = field(default_factory=dict)

    @property
    def scored(self) -> Network:
        """The network that is measured: the running average once that has begun, else the one that trains."""
        averaged = self.average is not None and bool(self.average.n_averaged)
        return cast(Network, self.average.module) if self.average is not None and averaged else self.network

    def ended(self) -> str | None:
        """Why there is nothing more to train, None while there is."""
        train = self.config.train
        if self.epoch and self.config.finetune.solver != "gradient":
            return "solved"
        if self.epoch >= train.epochs:
            return "last epoch"
        waited = epochs_waited(self.history, metric=train.metric, min_delta=train.min_delta)
        if train.patience is not None and waited >= train.patience:
            return f"no better {train.metric} for {train.patience} epochs"
        return None

    def enter(self, epoch: int) -> None:
        """Make trainable what this epoch trains, with a new head where a phase begins with one."""
        now = phase(self.config, plan=self.network.plan, epoch=epoch)
        self.network.enter(now)
        if self.average is not None:
            cast(Network, self.average.module).enter(now)
        if now.new_head and epoch == now.first:
            self._renew_head(epoch)

    def take_into_average(self, *, kept: float) -> None:
        """Take the weights into the running average, of which a share ``kept`` stays."""
        assert self.average is not None
        self.average.multi_avg_fn = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
        self.average.update_parameters(self.network)

    def finish(self, epoch: int, *, value: float) -> None:
        """Count an epoch, with the ``value`` of the metric that it is judged by."""
        self.epoch = epoch
        self.history[epoch] = value

    def save(self, folder: Path, *, results: dict[str, Any]) -> None:
        """Write the checkpoint of the last finished epoch, with its ``results`` for readers."""
        save_checkpoint(
            folder,
            network=self.network,
            moved=self._moved(self.epoch),
            average=self.average,
            optimizer=self.optimizer,
            counters=Counters(self.epoch, self.history, self.scaler.state_dict()),
            results=results,
        )

    def load(self, folder: Path) -> None:
        """Stand where a checkpoint was saved. Raises BrokenCheckpointError."""
        counters = load_checkpoint(
            folder, network=self.network, moved=self._moved, average=self.average, optimizer=self.optimizer
        )
        self.epoch, self.history = counters.epoch, counters.history
        self.scaler.load_state_dict(counters.scaler)

    def _moved(self, epoch: int) -> set[str]:
        return self.network.moved(self.config, until=epoch)

    def _renew_head(self, epoch: int) -> None:
        width, num_classes = self.network.width, len(self.network.shift)
        head = create_head(self.config, width=width, num_classes=num_classes, epoch=epoch)
        self.network.head.load_state_dict(head.state_dict())
        for parameter in self.network.head.parameters():
            self.optimizer.state.pop(parameter, None)
        if self.average is not None:
            self.average.n_averaged.zero_()


def create_state(setup: Setup) -> State:
    """The state of a trial before its first epoch."""
    train, network = setup.config.train, setup.network
    return State(
        config=setup.config,
        network=network,
        optimizer=create_optimizer(network, config=setup.config.optimizer),
        average=AveragedModel(network, use_buffers=True) if train.ema else None,
        scaler=torch.amp.GradScaler(setup.device.type, enabled=used_amp(train.amp, setup.device) == "fp16"),
    )
