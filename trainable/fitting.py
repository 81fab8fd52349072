"""The story of one trial, told an epoch at a time."""

import math
import resource
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainable.augment.mixing import mix
from trainable.checkpoint import Counters, checkpoint_bytes, load_checkpoint, save_checkpoint
from trainable.config import TrialConfig
from trainable.data.batches import Batch, Loader, evaluation_loader, normalise, num_batches, train_loader
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.errors import UserError
from trainable.evaluate import Evaluation, evaluate
from trainable.losses import CrossEntropy, class_weights
from trainable.metrics import best_epoch
from trainable.model.backbone import input_spec
from trainable.model.network import Network, create_network
from trainable.optim import create_optimizer, schedule_factor, set_rates
from trainable.randomness import seeded
from trainable.step import update

UPDATES_BETWEEN_LOSS_CHECKS = 16  # reading a loss makes a GPU wait


class DivergedError(Exception):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    ``metrics`` are named ``train/…``, ``val/…``, ``usage/…``; ``ended`` says why training is over, or is None while it
    goes on; ``save(folder)`` writes the checkpoint to resume from, valid until the next epoch is asked for.
    """

    number: int
    metrics: dict[str, float]
    evaluation: Evaluation
    ended: str | None
    save: Callable[[Path], None] = field(repr=False, compare=False)


def fit(config: TrialConfig, *, resume_from: Path | None = None) -> Generator[Epoch, None, str]:
    """Train as configured and yield every epoch; to stop, ask for no more.

    The generator returns why training ended. Resuming from the checkpoint of any epoch gives the rest of the unbroken
    run, bit for bit on a CPU. Raises UserError for data or weights that cannot be used, DivergedError when the loss is
    no longer finite.
    """
    device = pick_device(config)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    run = _start(config, pack=pack, spec=spec, device=device)
    if resume_from is not None:
        run.restore(resume_from)
    while (ended := run.ended()) is None:
        yield run.one_epoch()
    return ended


def pick_device(config: TrialConfig) -> torch.device:
    """The device of ``train.device``; raises UserError where it is absent or cannot do ``train.amp``."""
    has_cuda = torch.cuda.is_available()
    if config.train.device == "cuda" and not has_cuda:
        raise UserError(
            "train.device: 'cuda' was asked for, and this machine has no usable GPU; 'cpu' or 'auto' run here"
        )
    device = torch.device("cuda" if has_cuda and config.train.device != "cpu" else "cpu")
    if device.type == "cpu" and config.train.amp == "fp16":
        raise UserError("train.amp: 'fp16' needs a GPU; on a CPU 'off' or 'bf16'")
    return device


def score_checkpoint(config: TrialConfig, *, checkpoint: Path, split: str) -> Evaluation:
    """Scores on ``split`` of the network that a checkpoint of this configuration holds."""
    device = pick_device(config)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    run = _start(config, pack=pack, spec=spec, device=device)
    load_checkpoint(checkpoint, network=run.network, optimizer=None)
    return run.evaluate(split)


@dataclass(frozen=True)
class Measured:
    """What an epoch takes: ``seconds`` extrapolated from some updates, bytes of a checkpoint and of memory."""

    seconds: float
    checkpoint_bytes: int
    peak_memory_bytes: int


def measure_epoch(config: TrialConfig, *, updates: int = 3) -> Measured:
    """Time some updates and as many evaluation batches, after one of each to warm up; nothing is kept."""
    device = pick_device(config)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    run = _start(config, pack=open_pack(config.data, spec), spec=spec, device=device)
    run.epoch = 1
    training = _seconds_each(run.losses(), count=updates)
    evaluation = _seconds_each(run.logits("val"), count=updates)
    size = config.train.batch_size
    seconds = training * math.ceil(len(run.pack.indices("train")) / (size * config.train.accumulate))
    seconds += evaluation * math.ceil(len(run.pack.indices("val")) / size)
    return Measured(seconds, checkpoint_bytes(run.network, run.optimizer), _peak_memory_bytes(device))


def _seconds_each(steps: Iterator[Tensor], *, count: int) -> float:
    """Mean seconds of a step, each waited for: of ``count`` after the first, or of the first where it is alone."""
    moments = [time.perf_counter()]
    for value in steps:
        value.sum().item()
        moments.append(time.perf_counter())
        if len(moments) > count + 1:
            break
    warm = moments[1:] if len(moments) > 2 else moments
    return (warm[-1] - warm[0]) / max(1, len(warm) - 1)


def _start(config: TrialConfig, *, pack: Pack, spec: InputSpec, device: torch.device) -> "_Run":
    network = create_network(config, spec=spec, num_classes=len(pack.classes)).to(device)
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    counts = torch.tensor([pack.counts()["train"][name] for name in pack.classes])
    weights = class_weights(counts, config=config.loss).to(device)
    return _Run(
        config=config,
        pack=pack,
        spec=spec,
        device=device,
        network=network,
        optimizer=create_optimizer(network, config=config.optimizer),
        loss=CrossEntropy(weights, label_smoothing=config.loss.label_smoothing),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16"),
    )


@dataclass
class _Run:
    """The living state of a trial between two epochs."""

    config: TrialConfig
    pack: Pack
    spec: InputSpec
    device: torch.device
    network: Network
    optimizer: torch.optim.Optimizer
    loss: CrossEntropy
    scaler: torch.amp.GradScaler
    epoch: int = 0
    history: dict[int, float] = field(default_factory=dict)
    loaders: dict[str, Loader] = field(default_factory=dict)

    def restore(self, folder: Path) -> None:
        counters = load_checkpoint(folder, network=self.network, optimizer=self.optimizer)
        self.epoch, self.history = counters.epoch, counters.history
        self.scaler.load_state_dict(counters.scaler)

    def ended(self) -> str | None:
        """Why there is nothing more to train."""
        if self.epoch >= self.config.train.epochs:
            return "last epoch"
        best = best_epoch(self.history, metric=self.config.train.metric)
        patience = self.config.train.patience
        if best is not None and patience is not None and self.epoch - best >= patience:
            return f"no better {self.config.train.metric} for {patience} epochs"
        return None

    def one_epoch(self) -> Epoch:
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.epoch += 1
        loss = self._train()
        trained = time.perf_counter()
        evaluation = self.evaluate("val")
        metrics = {"train/loss": loss, **evaluation.named("val")}
        self.history[self.epoch] = metrics[self.config.train.metric]
        metrics |= {
            "usage/seconds": time.perf_counter() - started,
            "usage/images_per_second": len(self.pack.indices("train")) / (trained - started),
            "usage/peak_memory_bytes": float(_peak_memory_bytes(self.device)),
        }
        results = {"metrics": metrics, "evaluation": evaluation.as_dict(), "classes": list(self.pack.classes)}
        return Epoch(self.epoch, metrics, evaluation, self.ended(), lambda folder: self._save(folder, results))

    def evaluate(self, split: str) -> Evaluation:
        return evaluate(self.network, batches=self.batches(split), classes=self.pack.classes, autocast=self._autocast())

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A split on the device as evaluation sees it: normalised images, labels."""
        if split not in self.loaders:
            size, workers = self.config.train.batch_size, self.config.data.workers
            self.loaders[split] = evaluation_loader(self.pack, split, spec=self.spec, batch_size=size, workers=workers)
        for batch in self.loaders[split].epoch(self.epoch):
            yield self._images(batch), batch.labels.to(self.device)

    def logits(self, split: str) -> Iterator[Tensor]:
        """Logits of a split's batches as evaluation computes them."""
        self.network.eval()
        for images, _ in self.batches(split):
            with torch.inference_mode(), self._autocast():
                yield self.network(images)

    def losses(self) -> Iterator[Tensor]:
        """One pass over the training images, an update at a time; gives each update's mean loss."""
        config = self.config
        updates = math.ceil(self._batches_per_epoch() / config.train.accumulate)
        self.network.train()
        for index, batches in enumerate(_grouped(self._prepared(), size=config.train.accumulate)):
            self._set_rates(index, updates=updates)
            with seeded(config.seed, "dropout", self.epoch, index, device=self.device):
                loss = update(
                    self.network,
                    batches=batches,
                    optimizer=self.optimizer,
                    loss=self.loss,
                    scaler=self.scaler,
                    autocast=self._autocast(),
                    clip_norm=config.optimizer.clip_norm,
                )
            if index % UPDATES_BETWEEN_LOSS_CHECKS == 0:
                self._check_finite(loss)
            yield loss

    def _train(self) -> float:
        mean = torch.stack(list(self.losses())).double().mean()
        self._check_finite(mean)
        return float(mean)

    def _prepared(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the epoch on the device: normalised images, labels or mixed targets."""
        config = self.config
        if "train" not in self.loaders:
            self.loaders["train"] = train_loader(
                self.pack,
                augment=config.augment,
                spec=self.spec,
                batch_size=config.train.batch_size,
                seed=config.seed,
                workers=config.data.workers,
                pin=self.device.type == "cuda",
            )
        for index, batch in enumerate(self.loaders["train"].epoch(self.epoch)):
            yield mix(
                self._images(batch),
                batch.labels.to(self.device),
                config=config.augment,
                num_classes=len(self.pack.classes),
                seed=config.seed,
                epoch=self.epoch,
                step=index,
            )

    def _images(self, batch: Batch) -> Tensor:
        images = normalise(batch.images.to(self.device, non_blocking=True), self.spec)
        return images.contiguous(memory_format=torch.channels_last) if self.config.train.channels_last else images

    def _set_rates(self, index: int, *, updates: int) -> None:
        factor = schedule_factor(
            (self.epoch - 1) * updates + index,
            num_steps=self.config.train.epochs * updates,
            warmup_steps=round(self.config.schedule.warmup_epochs * updates),
            config=self.config.schedule,
        )
        set_rates(self.optimizer, factor=factor)

    def _batches_per_epoch(self) -> int:
        return num_batches(len(self.pack.indices("train")), batch_size=self.config.train.batch_size)

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = torch.float16 if self.config.train.amp == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.config.train.amp != "off")

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss became {float(loss)} in epoch {self.epoch}")

    def _save(self, folder: Path, results: dict[str, Any]) -> None:
        counters = Counters(self.epoch, self.history, self.scaler.state_dict())
        save_checkpoint(folder, network=self.network, optimizer=self.optimizer, counters=counters, results=results)


def _grouped(batches: Iterator[tuple[Tensor, Tensor]], *, size: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    group: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _peak_memory_bytes(device: torch.device) -> int:
    """Most memory held: by torch on a GPU, by the process since its start on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
