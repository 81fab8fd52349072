"""The living state of a trial: one epoch after the other, from one configuration."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainable.adapt.adaptation import Adaptation, Classify, Terms
from trainable.adapt.selectors import Outputs, selectors
from trainable.anchor import Anchor
from trainable.augment.mixing import mix
from trainable.checkpoint import Counters, load_checkpoint, save_checkpoint
from trainable.config import TrialConfig, used_batch_size
from trainable.continual import fisher_information
from trainable.data.batches import (
    Loader,
    Sampler,
    evaluation_loader,
    normalise,
    num_batches,
    target_loader,
    train_loader,
)
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.data.rehearsal import open_old, rehearsal_count
from trainable.device import autocast, peak_memory_bytes, pick_device
from trainable.evaluate import Evaluation, Predicted, predict, score
from trainable.losses import CrossEntropy, create_loss, prior_shift
from trainable.metrics import epochs_waited
from trainable.model.backbone import input_spec
from trainable.model.network import Network, aligned_stage, create_head, create_network
from trainable.model.norms import recompute_batch_norm, target_statistics
from trainable.optim import create_optimizer, set_rates
from trainable.probe import solved_head
from trainable.randomness import seeded
from trainable.schedule import plateau_factor, rate_factor
from trainable.step import Shown, update
from trainable.strategy import Phase, phase, phases

logger = logging.getLogger(__name__)
UPDATES_BETWEEN_LOSS_CHECKS = 16  # reading a loss makes a GPU wait
IMAGES_OF_DENSITY = 256  # training images of each domain by which selectors weigh the validation images


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


def start_run(config: TrialConfig) -> "Run":
    """A trial before its first epoch. Raises UserError for data, weights or a device that cannot be used."""
    device = pick_device(config)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    old = open_old(config.data, spec)
    counts = torch.tensor([pack.counts()["train"][name] for name in pack.classes])
    network = create_network(config, spec=spec, num_classes=len(pack.classes)).to(device)
    network.shift.copy_(prior_shift(counts, tau=config.loss.logit_adjustment))
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return Run(
        config=config,
        shown=_Images(pack, spec, old),
        shown_early=_early(config),
        device=device,
        network=network,
        optimizer=create_optimizer(network, config=config.optimizer),
        loss=create_loss(config.loss, counts=counts, device=device),
        balanced_loss=create_loss(
            config.loss.model_copy(update={"class_weights": "none", "focal_alpha": None}), counts=counts, device=device
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16"),
        batch_size=_said_batch_size(config, num_images=int(counts.sum())),
        average=AveragedModel(network, use_buffers=True) if config.train.ema else None,
        adaptation=Adaptation(config.adapt, aligned_stage(config, backbone=network.backbone, plan=network.plan), spec),
    )


@dataclass(frozen=True)
class _Images:
    """The images at one size, with the old ones to rehearse."""

    pack: Pack
    spec: InputSpec
    old: Pack | None


def _early(config: TrialConfig) -> _Images | None:
    if config.data.early_size is None:
        return None
    spec = input_spec(config.model, image_size=config.data.early_size, channels=config.data.channels)
    return _Images(open_pack(config.data, spec), spec, open_old(config.data, spec))


def _said_batch_size(config: TrialConfig, *, num_images: int) -> int:
    train = config.train
    used = used_batch_size(train, num_images=num_images)
    if used < train.batch_size:
        wanted = f"for train.min_updates: {train.min_updates} in {num_images} images"
        logger.warning("train.batch_size: %d is lowered to %d, %s", train.batch_size, used, wanted)
    return used


def _anchor(network: Network, *, config: TrialConfig, shown: _Images) -> Anchor | None:
    """L2-SP and EWC hold the backbone, as it was loaded; a head has nowhere to be pulled to."""
    backbone = {name: p for name, p in network.named_parameters() if name.startswith("backbone.")}
    if config.finetune.l2_sp:
        return Anchor(backbone, strength=config.finetune.l2_sp)
    if config.finetune.ewc and shown.old is not None:
        importance = fisher_information(network, pack=shown.old, spec=shown.spec, config=config)
        return Anchor(backbone, strength=config.finetune.ewc, importance=importance)
    return None


@dataclass
class Run:
    """The living state of a trial between two epochs."""

    config: TrialConfig
    shown: _Images
    shown_early: _Images | None
    device: torch.device
    network: Network
    optimizer: torch.optim.Optimizer
    loss: CrossEntropy
    balanced_loss: CrossEntropy
    scaler: torch.amp.GradScaler
    batch_size: int
    average: AveragedModel | None
    adaptation: Adaptation
    anchor: Anchor | None = None
    epoch: int = 0
    history: dict[int, float] = field(default_factory=dict)
    loaders: dict[tuple[str, str, int], Loader] = field(default_factory=dict)

    @property
    def pack(self) -> Pack:
        """The images at their full size."""
        return self.shown.pack

    def begin(self) -> None:
        """What a trial does before its first epoch."""
        self.anchor = _anchor(self.network, config=self.config, shown=self.shown)
        if self.config.adapt.method == "adabn":
            self._take_target_statistics(self.network, every=True)
        if self.config.finetune.strategy == "lp_ft":
            self._solve_head()

    def restore(self, folder: Path) -> None:
        """Stand where a checkpoint was saved."""
        self.anchor = _anchor(self.network, config=self.config, shown=self.shown)
        counters = load_checkpoint(
            folder, network=self.network, moved=self.moved, average=self.average, optimizer=self.optimizer
        )
        self.epoch, self.history = counters.epoch, counters.history
        self.scaler.load_state_dict(counters.scaler)

    def moved(self, epoch: int) -> set[str]:
        """The parameters that have trained in the epochs up to this one."""
        every = phases(self.config, plan=self.network.plan, until=epoch)
        return set().union(*(self.network.trainable(one) for one in every))

    def ended(self) -> str | None:
        """Why there is nothing more to train."""
        train = self.config.train
        if self.epoch >= train.epochs:
            return "last epoch"
        waited = epochs_waited(self.history, metric=train.metric, min_delta=train.min_delta)
        if train.patience is not None and waited >= train.patience:
            return f"no better {train.metric} for {train.patience} epochs"
        return None

    def one_epoch(self) -> Epoch:
        """Train and validate the next epoch."""
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.epoch += 1
        self.enter_phase()
        losses = self._train()
        trained = time.perf_counter()
        evaluation, measured = self.measure()
        metrics = {**{f"train/{name}": value for name, value in losses.items()}, **measured}
        self.history[self.epoch] = metrics[self.config.train.metric]
        metrics |= {
            "usage/seconds": time.perf_counter() - started,
            "usage/images_per_second": self._num_images() / (trained - started),
            "usage/batch_size": float(self.batch_size),
            "usage/peak_memory_bytes": float(peak_memory_bytes(self.device)),
        }
        results = {"metrics": metrics, "evaluation": evaluation.as_dict(), "classes": list(self.pack.classes)}
        return Epoch(self.epoch, metrics, evaluation, self.ended(), lambda folder: self._save(folder, results))

    def enter_phase(self) -> None:
        """Make trainable what this epoch trains, with a new head where a phase begins with one."""
        now = self._phase()
        self.network.enter(now)
        if not (now.new_head and self.epoch == now.first):
            return
        width = self.network.width
        head = create_head(self.config, width=width, num_classes=len(self.pack.classes), epoch=self.epoch)
        self.network.head.load_state_dict(head.state_dict())
        for parameter in self.network.head.parameters():
            self.optimizer.state.pop(parameter, None)
        if self.average is not None:
            self.average.n_averaged.zero_()

    def measure(self) -> tuple[Evaluation, dict[str, float]]:
        """Validation scores, and all that an epoch is judged by under full names: those and the selectors of the target."""
        if self.config.data.target is None:
            evaluation = self.evaluate("val")
            return evaluation, evaluation.named("val")
        if self.config.adapt.method == "adabn":
            self._take_target_statistics(self._scored(), every=False)
        source = self.predict("val")
        evaluation = score(source.probabilities, labels=source.labels, classes=self.pack.classes)
        return evaluation, evaluation.named("val") | self._target_metrics(source)

    def evaluate(self, split: str) -> Evaluation:
        """Scores of the network, or of its running average once that has begun, on a split that has labels."""
        found = self.predict(split)
        return score(found.probabilities, labels=found.labels, classes=self.pack.classes)

    def predict(self, split: str, *, limit: int | None = None) -> Predicted:
        """What that network makes of a split, or of its first ``limit`` images or few more; each domain by its own norms."""
        network, batches = self._scored(), self.batches(split)
        if limit is not None:
            batches = itertools.islice(batches, math.ceil(limit / self.batch_size))
        numerics = autocast(self.device, self.config.train)
        with target_statistics(network) if split.startswith("target") else nullcontext():
            return predict(network, batches=batches, autocast=numerics)

    def _scored(self) -> Network:
        averaged = self.average is not None and bool(self.average.n_averaged)
        return cast(Network, self.average.module) if self.average is not None and averaged else self.network

    def _target_metrics(self, source: Predicted) -> dict[str, float]:
        """Selectors of the target; only an oracle's run looks at its labels."""
        target = self.predict("target_val")
        found = selectors(
            Outputs(target.features, target.probabilities),
            source=Outputs(source.features, source.probabilities),
            source_labels=source.labels,
            target_train=self.predict("target", limit=IMAGES_OF_DENSITY).features,
            source_train=self.predict("train", limit=IMAGES_OF_DENSITY).features,
            seed=self.config.seed,
        )
        metrics = {f"target/{name}": value for name, value in found.items()}
        if self.config.data.oracle:
            metrics |= score(target.probabilities, labels=target.labels, classes=self.pack.classes).named("oracle")
        return metrics

    def _take_target_statistics(self, network: Network, *, every: bool) -> None:
        """Give the batch norms the statistics of the target's training images (AdaBN, Li et al. 2018)."""
        with target_statistics(network):
            recompute_batch_norm(network, (images for images, _ in self.batches("target")), every=every)

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A split on the device as evaluation sees it: normalised images, labels."""
        shown = self._shown()
        key = ("evaluation", split, shown.spec.size)
        if key not in self.loaders:
            size, workers = self.batch_size, self.config.data.workers
            self.loaders[key] = evaluation_loader(shown.pack, split, spec=shown.spec, batch_size=size, workers=workers)
        for batch in self.loaders[key].epoch(self.epoch):
            yield self._normalised(batch.images), batch.labels.to(self.device)

    def logits(self, split: str) -> Iterator[Tensor]:
        """Logits of a split's batches as evaluation computes them."""
        self.network.eval()
        for images, _ in self.batches(split):
            with torch.inference_mode(), autocast(self.device, self.config.train):
                yield self.network(images)

    def losses(self) -> Iterator[Tensor]:
        """One pass over the training images, an update at a time; gives each update's mean loss."""
        return (found["loss"] for found in self._updates())

    def _updates(self) -> Iterator[dict[str, Tensor]]:
        """One pass over the training images, an update at a time; gives each update's mean loss and its parts."""
        config = self.config
        updates = math.ceil(self._batches_per_epoch() / config.train.accumulate)
        averages = self.average is not None and self.epoch > config.train.ema_start
        loss_function = self.balanced_loss if self._phase().balanced else self.loss
        self.network.train()
        for index, batches in enumerate(_grouped(self._prepared(), size=config.train.accumulate)):
            self._set_rates(index, updates=updates)
            progress = (self.epoch - 1 + index / updates) / config.train.epochs
            with seeded(config.seed, "dropout", self.epoch, index, device=self.device):
                found = update(
                    self.network,
                    batches=batches,
                    optimizer=self.optimizer,
                    loss=loss_function,
                    scaler=self.scaler,
                    autocast=autocast(self.device, self.config.train),
                    clip_norm=config.optimizer.clip_norm,
                    anchor=self.anchor,
                    adapted=partial(self._adapted, progress) if self.adaptation.sees_target else None,
                )
            if averages:
                self._average(updates)
            if index % UPDATES_BETWEEN_LOSS_CHECKS == 0:
                self._check_finite(found["loss"])
            yield found

    def _adapted(self, progress: float, shown: Shown, classify: Classify) -> Terms:
        assert shown.others is not None
        return self.adaptation.terms(
            self.network,
            images=shown.images,
            others=shown.others,
            classify=classify,
            progress=progress,
            autocast=autocast(self.device, self.config.train),
        )

    def _train(self) -> dict[str, float]:
        """Train an epoch; means over its updates of the loss and of its parts."""
        found = list(self._updates())
        means = {name: torch.stack([one[name] for one in found]).double().mean() for name in found[0]}
        self._check_finite(means["loss"])
        return {name: float(mean) for name, mean in means.items()}

    def _prepared(self) -> Iterator[Shown]:
        """Batches of the epoch on the device: normalised images, labels or mixed targets, images of the target domain."""
        config = self.config
        others = self._target_batches() if self.adaptation.sees_target else itertools.repeat(None)
        for index, (batch, other) in enumerate(zip(self._training_loader().epoch(self.epoch), others, strict=False)):
            pixels = batch.images.to(self.device, non_blocking=True)
            if other is not None:
                progress = (self.epoch - 1) / config.train.epochs
                step = (config.seed, self.epoch, index)
                pixels = self.adaptation.swapped(pixels, other, progress=progress, seed=step)
            images, targets = mix(
                self._normalised(pixels),
                batch.labels.to(self.device),
                config=config.augment,
                num_classes=len(self.pack.classes),
                seed=config.seed,
                epoch=self.epoch,
                step=index,
            )
            yield Shown(images, targets, None if other is None else self._normalised(other))

    def _training_loader(self) -> Loader:
        config, shown = self.config, self._shown()
        key = ("training", "train", shown.spec.size)
        if key not in self.loaders:
            self.loaders[key] = train_loader(
                shown.pack,
                augment=config.augment,
                spec=shown.spec,
                batch_size=self.batch_size,
                seed=config.seed,
                sampler=self._sampler,
                old=shown.old,
                num_old=self._num_old(),
                workers=config.data.workers,
                pin=self.device.type == "cuda",
            )
        return self.loaders[key]

    def _target_batches(self) -> Iterator[Tensor]:
        """Images of the target domain on the device, uint8, beside every training batch as many."""
        config, shown = self.config, self._shown()
        key = ("training", "target", shown.spec.size)
        if key not in self.loaders:
            self.loaders[key] = target_loader(
                shown.pack,
                augment=config.augment,
                spec=shown.spec,
                batch_size=self.batch_size,
                seed=config.seed,
                count=self._num_images(),
                workers=config.data.workers,
                pin=self.device.type == "cuda",
            )
        for batch in self.loaders[key].epoch(self.epoch):  # whose labels, if any, go nowhere
            yield batch.images.to(self.device, non_blocking=True)

    def _normalised(self, pixels: Tensor) -> Tensor:
        images = normalise(pixels.to(self.device, non_blocking=True), self._shown().spec)
        return images.contiguous(memory_format=torch.channels_last) if self.config.train.channels_last else images

    def _shown(self) -> _Images:
        early = self.shown_early is not None and self.epoch <= self.config.data.early_epochs
        return self.shown_early if early and self.shown_early is not None else self.shown

    def _phase(self) -> Phase:
        return phase(self.config, plan=self.network.plan, epoch=self.epoch)

    def _sampler(self, epoch: int) -> Sampler:
        balanced = phase(self.config, plan=self.network.plan, epoch=epoch).balanced
        return "balanced" if balanced else self.config.data.sampler

    def _set_rates(self, index: int, *, updates: int) -> None:
        """The rate runs its course over the epochs of the phase; only the first phase warms up."""
        now, schedule = self._phase(), self.config.schedule
        warmup = round(schedule.warmup_epochs * updates) if now.first == 1 else 0
        factor = rate_factor(
            (self.epoch - now.first) * updates + index,
            num_steps=(now.last - now.first + 1) * updates,
            warmup_steps=warmup,
            config=schedule,
        )
        if schedule.name == "plateau":
            known = {epoch: value for epoch, value in self.history.items() if now.first <= epoch < self.epoch}
            train = self.config.train
            factor *= plateau_factor(known, metric=train.metric, min_delta=train.min_delta, config=schedule)
        set_rates(self.optimizer, factor=factor)

    def _average(self, updates: int) -> None:
        """Take the weights into the average; what is left of it after one epoch is ``train.ema``."""
        assert self.average is not None
        self.average.multi_avg_fn = get_ema_multi_avg_fn(self.config.train.ema ** (1 / updates))  # type: ignore[no-untyped-call]
        self.average.update_parameters(self.network)

    def _solve_head(self) -> None:
        """Give the head the solution of the probe on the features as they are now (LP-FT, Kumar et al. 2022)."""
        self.network.eval()
        features, labels = [], []
        for images, targets in self.batches("train"):
            with torch.inference_mode(), autocast(self.device, self.config.train):
                features.append(self.network.features(images).float().cpu())
            labels.append(targets.cpu())
        weight, bias = solved_head(
            torch.cat(features).numpy(),
            torch.cat(labels).numpy(),
            num_classes=len(self.pack.classes),
            c=self.config.finetune.probe_c,
        )
        self.network.set_head(weight, bias)

    def _batches_per_epoch(self) -> int:
        return num_batches(self._num_images(), batch_size=self.batch_size)

    def _num_images(self) -> int:
        """Images of an epoch."""
        return len(self.pack.indices("train")) + self._num_old()

    def _num_old(self) -> int:
        if self.shown.old is None:
            return 0
        num_new, num_old = len(self.pack.indices("train")), len(self.shown.old.indices("train"))
        return rehearsal_count(self.config.data, num_new=num_new, num_old=num_old)

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss became {float(loss)} in epoch {self.epoch}")

    def _save(self, folder: Path, results: dict[str, Any]) -> None:
        save_checkpoint(
            folder,
            network=self.network,
            moved=self.moved(self.epoch),
            average=self.average,
            optimizer=self.optimizer,
            counters=Counters(self.epoch, self.history, self.scaler.state_dict()),
            results=results,
        )


def _grouped(batches: Iterator[Shown], *, size: int) -> Iterator[list[Shown]]:
    group: list[Shown] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
