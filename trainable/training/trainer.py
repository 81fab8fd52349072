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

from trainable.adapt.methods import Adaptation, Classify, Terms
from trainable.config.trial import TrialConfig, used_batch_size
from trainable.data.pack import Pack
from trainable.metrics import epochs_waited
from trainable.model.network import Network, aligned_stage, create_head, create_network
from trainable.model.norms import recompute_batch_norm, target_statistics
from trainable.model.phase import STRATEGIES, Phase, phase, phases
from trainable.model.prefix_cut import Cut
from trainable.randomness import seeded
from trainable.statistics.probe import solved_head
from trainable.statistics.scores import Evaluation, score
from trainable.statistics.selectors import Outputs, selectors
from trainable.training.anchor import Anchor, fisher_information
from trainable.training.checkpoint import Counters, load_checkpoint, save_checkpoint
from trainable.training.device import autocast, peak_memory_bytes, pick_device
from trainable.training.evaluate import Predicted, predict
from trainable.training.frozen_prefix import Prefixes, create_prefixes
from trainable.training.inputs import Images, Inputs, open_images
from trainable.training.losses import Loss, create_balanced_loss, create_loss, prior_shift
from trainable.training.lr_schedule import rate_factor, reaction_factor
from trainable.training.optimizer import create_optimizer, set_rates
from trainable.training.step import Shown, update

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
    images = open_images(config, size=config.data.image_size)
    early = None if config.data.early_size is None else open_images(config, size=config.data.early_size)
    pack, spec = images.pack, images.spec
    counts = torch.tensor([pack.counts()["train"][name] for name in pack.classes])
    network = create_network(config, spec=spec, num_classes=len(pack.classes)).to(device)
    network.shift.copy_(prior_shift(counts, tau=config.loss.logit_adjustment))
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return Run(
        config=config,
        inputs=Inputs(
            config, network.plan, images, early, device, _said_batch_size(config, num_images=int(counts.sum()))
        ),
        device=device,
        network=network,
        optimizer=create_optimizer(network, config=config.optimizer),
        loss=create_loss(config.loss, counts=counts, device=device),
        balanced_loss=create_balanced_loss(config.loss, counts=counts, device=device),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16"),
        average=AveragedModel(network, use_buffers=True) if config.train.ema else None,
        adaptation=Adaptation(config.adapt, aligned_stage(config, backbone=network.backbone, plan=network.plan), spec),
    )


def _said_batch_size(config: TrialConfig, *, num_images: int) -> int:
    train = config.train
    used = used_batch_size(train, num_images=num_images)
    if used < train.batch_size:
        wanted = f"for train.min_updates: {train.min_updates} in {num_images} images"
        logger.warning("train.batch_size: %d is lowered to %d, %s", train.batch_size, used, wanted)
    return used


def _anchor(network: Network, *, config: TrialConfig, images: Images) -> Anchor | None:
    """L2-SP and EWC hold the backbone, as it was loaded; a head has nowhere to be pulled to."""
    backbone = {name: p for name, p in network.named_parameters() if name.startswith("backbone.")}
    if config.finetune.l2_sp:
        return Anchor(backbone, strength=config.finetune.l2_sp)
    if config.finetune.ewc and images.old is not None:
        importance = fisher_information(network, pack=images.old, spec=images.spec, config=config)
        return Anchor(backbone, strength=config.finetune.ewc, importance=importance)
    return None


@dataclass
class Run:
    """The living state of a trial between two epochs."""

    config: TrialConfig
    inputs: Inputs
    device: torch.device
    network: Network
    optimizer: torch.optim.Optimizer
    loss: Loss
    balanced_loss: Loss
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    adaptation: Adaptation
    anchor: Anchor | None = None
    epoch: int = 0
    history: dict[int, float] = field(default_factory=dict)
    prefixes: Prefixes | None = None

    @property
    def pack(self) -> Pack:
        """The images at their full size."""
        return self.inputs.full.pack

    @property
    def batch_size(self) -> int:
        """Images of a forward pass."""
        return self.inputs.batch_size

    def begin(self) -> None:
        """What a trial does before its first epoch."""
        self.prefixes = create_prefixes(self.config, inputs=self.inputs)
        self.anchor = _anchor(self.network, config=self.config, images=self.inputs.full)
        if STRATEGIES[self.config.finetune.strategy].solves_head:
            self._solve_head()

    def restore(self, folder: Path) -> None:
        """Stand where a checkpoint was saved."""
        self.prefixes = create_prefixes(self.config, inputs=self.inputs)
        self.anchor = _anchor(self.network, config=self.config, images=self.inputs.full)
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
            "usage/images_per_second": self.inputs.num_images / (trained - started),
            "usage/batch_size": float(self.batch_size),
            "usage/prefix_stored": float(self._training_cut() is not None),
            "usage/peak_memory_bytes": float(peak_memory_bytes(self.device)),
        }
        results = {"metrics": metrics, "evaluation": evaluation.as_dict(), "classes": list(self.pack.classes)}
        return Epoch(self.epoch, metrics, evaluation, self.ended(), lambda folder: self._save(folder, results))

    def enter_phase(self) -> None:
        """Make trainable what this epoch trains, with a new head where a phase begins with one."""
        now = self._phase()
        self.network.enter(now)
        if self.average is not None:
            cast(Network, self.average.module).enter(now)
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
            self._adapt_norms()
        source = self.predict("val")
        evaluation = score(source.probabilities, labels=source.labels, classes=self.pack.classes)
        return evaluation, evaluation.named("val") | self._target_metrics(source)

    @property
    def num_measured(self) -> int:
        """Images that :meth:`measure` looks at."""
        splits = {split: len(self.pack.indices(split)) for split in ("train", "val", "target", "target_val")}
        if self.config.data.target is None:
            return splits["val"]
        density = sum(min(IMAGES_OF_DENSITY, splits[split]) for split in ("train", "target"))
        adapting = splits["target"] if self.config.adapt.method == "adabn" else 0
        return splits["val"] + splits["target_val"] + density + adapting

    def evaluate(self, split: str) -> Evaluation:
        """Scores of the network, or of its running average once that has begun, on a split that has labels."""
        found = self.predict(split)
        return score(found.probabilities, labels=found.labels, classes=self.pack.classes)

    def predict(self, split: str, *, limit: int | None = None) -> Predicted:
        """What that network makes of a split, or of its first ``limit`` images or few more; each domain by its own norms."""
        network, cut = self._scored().eval(), self._cut()
        numerics = autocast(self.device, self.config.train)
        domain = target_statistics(network) if split.startswith("target") else nullcontext()
        with domain, network.beginning_at(cut):
            batches = self._inputs(split, network=network, cut=cut)
            if limit is not None:
                batches = itertools.islice(batches, math.ceil(limit / self.batch_size))
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

    def _adapt_norms(self) -> None:
        """Take the target's statistics anew: those of resting norms in the first epoch at an image size, which then stay."""
        if self.epoch in (1, self.config.data.early_epochs + 1):
            self.take_target_statistics(self.network, every=True)
            if self._scored() is not self.network:
                self.take_target_statistics(self._scored(), every=True)
        else:
            self.take_target_statistics(self._scored(), every=False)

    def take_target_statistics(self, network: Network, *, every: bool) -> None:
        """Give the batch norms, or those that move, the statistics of the target's training images (AdaBN, Li et al. 2018)."""
        network.eval()
        cut = None if every else self._cut()
        with target_statistics(network), network.beginning_at(cut):
            batches = self._inputs("target", network=network, cut=cut)
            recompute_batch_norm(network, (images for images, _ in batches), every=every)

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A split on the device as evaluation sees it: normalised images, labels."""
        return self.inputs.split(split, epoch=self.epoch)

    def _inputs(self, split: str, *, network: Network, cut: Cut | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The same as the network takes it behind ``cut``: what its prefix, as it is now, makes of the images."""
        if cut is None or self.prefixes is None:
            return self.batches(split)
        stored = self.prefixes.evaluated(split, network=network, cut=cut, epoch=self.epoch)
        return self.inputs.split(split, epoch=self.epoch, stored=stored)

    def _cut(self) -> Cut | None:
        """Behind which frozen layers this epoch's networks begin; None where they look at the images anew."""
        if self.prefixes is None:
            return None
        return self.prefixes.cut(self.network, phase=self._phase(), epoch=self.epoch)

    def _training_cut(self) -> Cut | None:
        if self.prefixes is None:
            return None
        end = self.adaptation.end
        return self.prefixes.training_cut(self.network, phase=self._phase(), epoch=self.epoch, end=end)

    def logits(self, split: str) -> Iterator[Tensor]:
        """Logits of a split's batches as evaluation computes them."""
        self.network.eval()
        for images, _ in self.batches(split):
            with torch.inference_mode(), autocast(self.device, self.config.train):
                yield self.network(images)

    def losses(self) -> Iterator[Tensor]:
        """One pass over the training images, an update at a time; gives each update's mean loss."""
        return (found["loss"] for found in self._updates())

    @property
    def updates_per_epoch(self) -> int:
        """Updates of an epoch's training, on old images too where it rehearses them."""
        return math.ceil(self.inputs.batches_per_epoch / self.config.train.accumulate)

    def _updates(self) -> Iterator[dict[str, Tensor]]:
        """One pass over the training images, an update at a time; gives each update's mean loss and its parts."""
        config = self.config
        updates = self.updates_per_epoch
        averages = self.average is not None and self.epoch > config.train.ema_start
        loss_function = self.balanced_loss if self._phase().balanced else self.loss
        self.network.train()
        with self.network.beginning_at(self._training_cut()):
            for index, batches in enumerate(_grouped(self._shown(), size=config.train.accumulate)):
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

    def _shown(self) -> Iterator[Shown]:
        """The epoch's batches, as the network takes them."""
        stored, cut = None, self.network.cut
        if self.prefixes is not None and cut is not None:
            splits = ("train", "target") if self.adaptation.sees_target else ("train",)
            stored = self.prefixes.trained(splits, network=self.network, cut=cut, epoch=self.epoch)
        return self.inputs.training(epoch=self.epoch, adaptation=self.adaptation, stored=stored)

    def _phase(self) -> Phase:
        return phase(self.config, plan=self.network.plan, epoch=self.epoch)

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
        known = {epoch: value for epoch, value in self.history.items() if now.first <= epoch < self.epoch}
        train = self.config.train
        factor *= reaction_factor(known, metric=train.metric, min_delta=train.min_delta, config=schedule)
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
