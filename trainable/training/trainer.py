"""Trains a network: an epoch, its updates, one update."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from trainable.adapt.methods import Adaptation
from trainable.adapt.seen import Terms
from trainable.config.techniques import METHODS
from trainable.config.trial import TrialConfig
from trainable.loader.mixing import mixes
from trainable.loader.views import num_views, view_of
from trainable.model.network import aligned_stage
from trainable.model.phase import Phase, phase
from trainable.prefix.outputs import Spent
from trainable.prefix.prefixes import Prefixes
from trainable.randomness import forked, reseed
from trainable.statistics.scores import Evaluation
from trainable.training.anchor import Anchor
from trainable.training.device import autocast, gpu_bytes, numerics, peak_memory_bytes
from trainable.training.inputs import Inputs, Shown
from trainable.training.losses import Loss, create_balanced_loss, create_loss
from trainable.training.lr_schedule import rate_factor, reaction_factor
from trainable.training.measure import Measurer
from trainable.training.optimizer import of_trainable, set_rates
from trainable.training.setup import Setup
from trainable.training.solving import solve_head
from trainable.training.state import State, create_state
from trainable.training.teacher import soft_targets
from trainable.training.usage import Clock, usage

UPDATES_BETWEEN_LOSS_CHECKS = 16  # reading a loss makes a GPU wait


class DivergedError(Exception):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the ``state`` of a trial on its inputs, and measures it.

    ``anchor`` holds weights near where they began, None where nothing is held; ``prefixes`` keep what frozen layers make of
    the images, None where every epoch looks at the images anew.
    """

    config: TrialConfig
    device: torch.device
    inputs: Inputs
    state: State
    loss: Loss
    balanced_loss: Loss
    adaptation: Adaptation
    anchor: Anchor | None
    prefixes: Prefixes | None
    measurer: Measurer
    clock: Clock = field(default_factory=Clock)

    def one_epoch(self) -> Epoch:
        """Train and validate the next epoch."""
        state, epoch, started = self.state, self.state.epoch + 1, time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        solves = self.config.finetune.solver != "gradient"
        losses = self._solve(epoch) if solves else self._mean_losses(epoch)
        trained, spent = time.perf_counter(), self._take_spent()
        with self.clock.running("evaluation"):
            evaluation, measured = self.measurer.measure(state.scored, epoch=epoch, trained=state.network)
        metrics = {**{f"train/{name}": value for name, value in losses.items()}, **measured}
        state.finish(epoch, value=metrics[self.config.train.metric])
        metrics |= {
            **usage(time.perf_counter() - started, spent=self.clock.take(), trained=spent, measured=self._take_spent()),
            "usage/images_per_second": self.inputs.num_images / (trained - started),
            "usage/batch_size": float(self.inputs.batch_size),
            "usage/views": float(self.num_views(epoch) or self.config.train.epochs),
            "usage/prefix_share": self._share_before(epoch),
            "usage/peak_memory_bytes": float(peak_memory_bytes(self.device)),
            **gpu_bytes(self.device),
        }
        classes = list(self.inputs.full.pack.classes)
        used = numerics(self.device, self.config.train)
        results = {"metrics": metrics, "evaluation": evaluation.as_dict(), "classes": classes, "numerics": used}
        return Epoch(
            number=epoch,
            metrics=metrics,
            evaluation=evaluation,
            ended=state.ended(),
            save=lambda folder: state.save(folder, results=results),
        )

    def _solve(self, epoch: int) -> dict[str, float]:
        """Solve for the head in place of an epoch's updates; the loss that it has on the images it was solved for."""
        state = self.state
        state.enter(epoch)
        solved = solve_head(state.network, measurer=self.measurer, epoch=epoch)
        with torch.inference_mode():
            logits = state.network.classify(torch.from_numpy(solved.features).to(self.device))
            labels = torch.from_numpy(solved.labels).to(self.device)
            loss = self.loss.sum(logits, labels) / self.loss.weight(labels)
        _check_finite(loss, epoch=epoch)
        return {"loss": float(loss)}

    def _mean_losses(self, epoch: int) -> dict[str, float]:
        """Train an epoch; means over its updates of the loss and of its parts."""
        losses = list(self.updates(epoch))
        means = {name: torch.stack([update[name] for update in losses]).double().mean() for name in losses[0]}
        _check_finite(means["loss"], epoch=epoch)
        return {name: float(mean) for name, mean in means.items()}

    def updates(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Train an epoch, an update at a time; gives the mean `loss` of each and its parts, scalar tensors."""
        config, state = self.config, self.state
        state.enter(epoch)
        state.network.train()
        averages = state.average is not None and epoch > config.train.ema_start
        with self._beginning(epoch) as shown, of_trainable(state.optimizer), forked(self.device):
            for index, batches in enumerate(_grouped(self.clock.timed(shown), size=config.train.accumulate)):
                set_rates(state.optimizer, factor=self._rate(epoch, index=index))
                reseed(config.seed, "dropout", epoch, index, device=self.device)
                losses = self._update(batches, epoch=epoch, index=index)
                if averages:  # what is left of the average after one epoch is train.ema
                    state.take_into_average(kept=config.train.ema ** (1 / self.updates_per_epoch))
                if index % UPDATES_BETWEEN_LOSS_CHECKS == 0:
                    _check_finite(losses["loss"], epoch=epoch)
                yield losses

    def _update(self, batches: Sequence[Shown], *, epoch: int, index: int) -> dict[str, Tensor]:
        """Forward, loss, backward, pull to the anchor, clip, step over one effective batch; gives its mean losses.

        Several batches accumulate: their gradient is that of one batch holding all their images, but that batch norm in
        train mode, and what aligns domains, see each batch alone.
        """
        state, loss = self.state, self._loss(epoch)
        progress = (epoch - 1 + index / self.updates_per_epoch) / self.config.train.epochs
        state.optimizer.zero_grad(set_to_none=True)
        start = torch.zeros((), device=self.device)
        weight = sum((loss.weight(batch.targets) for batch in batches), start=start)
        losses: dict[str, Tensor] = {}
        for batch in batches:
            share = len(batch.images) / sum(len(part.images) for part in batches)
            terms = self._terms(batch, loss=loss, weight=weight * share, progress=progress)
            state.scaler.scale(terms.loss * share).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": terms.loss.detach(), **terms.parts}.items():
                losses[name] = losses.get(name, start) + value * share
        clip_norm = self.config.optimizer.clip_norm
        if clip_norm is not None or self.anchor is not None:
            state.scaler.unscale_(state.optimizer)
        if self.anchor is not None:
            self.anchor.pull(state.network)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return losses

    def _rate(self, epoch: int, *, index: int) -> float:
        """The share of its peak that the rate has: its course over the epochs of the phase; only the first phase warms up."""
        now, schedule, train = self._phase(epoch), self.config.lr_schedule, self.config.train
        history = {past: value for past, value in self.state.history.items() if now.first <= past < epoch}
        factor = rate_factor(
            (epoch - now.first) * self.updates_per_epoch + index,
            num_steps=(now.last - now.first + 1) * self.updates_per_epoch,
            warmup_steps=round(schedule.warmup_epochs * self.updates_per_epoch) if now.first == 1 else 0,
            config=schedule,
        )
        return factor * reaction_factor(history, metric=train.metric, min_delta=train.min_delta, config=schedule)

    def _terms(self, batch: Shown, *, loss: Loss, weight: Tensor, progress: float) -> Terms:
        """The loss of a batch of which ``weight`` is its share in that of the update, with the terms of the adaptation."""

        def classify(logits: Tensor) -> Tensor:
            return loss.sum(logits, batch.targets) / weight

        precision = autocast(self.device, self.config.train)
        if not self.adaptation.sees_target:
            with precision:
                logits = self.state.network(batch.images)
            return Terms(classify(logits), {})
        assert batch.others is not None
        return self.adaptation.terms(
            self.state.network,
            images=batch.images,
            others=batch.others,
            classify=classify,
            progress=progress,
            autocast=precision,
        )

    def _loss(self, epoch: int) -> Loss:
        return self.balanced_loss if self._phase(epoch).balanced else self.loss

    @contextmanager
    def _beginning(self, epoch: int) -> Iterator[Iterator[Shown]]:
        """The epoch's batches as the network takes them inside: images, or what its first links made of them."""
        links, view = self._links(epoch), self._view(epoch)
        inputs, network = self.inputs, self.state.network
        if not links or self.prefixes is None:
            yield inputs.training(epoch=epoch, view=view, adaptation=self.adaptation)
            return
        with self.clock.running("opening"):
            behind = {
                split: self.prefixes.open(network, links=links, viewed=inputs.viewed(split, epoch=epoch, view=view))
                for split in ("train", *(("target",) if self.adaptation.sees_target else ()))
            }
        with network.beginning_behind(links, chain=self.prefixes.chain):
            yield inputs.training(epoch=epoch, view=view, adaptation=self.adaptation, behind=behind)

    def _links(self, epoch: int) -> int:
        """Behind how many frozen links an epoch's training begins; 0 where it looks at whole images.

        It does where images are mixed, moved by their gradient, joined by old or unlabelled ones, varied by the user's own code,
        which may change, and where another layer's outputs than the last one's are to be aligned.
        """
        config, method = self.config, METHODS[self.config.adapt.method]
        if (
            self.prefixes is None
            or mixes(config.augment, epoch=epoch)
            or self.adaptation.end is not None
            or config.augment.custom
            or method.changes_images
            or config.data.rehearsal is not None
            or config.distill.unlabelled is not None
        ):
            return 0
        return self.prefixes.links(self._phase(epoch))

    def _share_before(self, epoch: int) -> float:
        """The share of the backbone's work that is done before the layers at which an epoch's training begins."""
        if self.prefixes is None:
            return 0.0
        return sum(link.work for link in self.prefixes.chain[: self._links(epoch)])

    def num_views(self, epoch: int) -> int | None:
        """How many views of an image training sees as an epoch is trained; None for another in every epoch."""
        if self.config.finetune.solver != "gradient":
            return 1  # the evaluation's
        share = self._share_before(epoch)
        return num_views(self.config.augment, channels=self.config.data.channels, begins_behind=share)

    def _view(self, epoch: int) -> int:
        return view_of(epoch, num=self.num_views(epoch))

    def _take_spent(self) -> Spent:
        """What frozen layers took and saved since this was asked last."""
        return Spent() if self.prefixes is None else self.prefixes.take_spent()

    def _phase(self, epoch: int) -> Phase:
        return phase(self.config, plan=self.state.network.plan, epoch=epoch)

    @property
    def updates_per_epoch(self) -> int:
        """Updates of an epoch's training, on old images too where it rehearses them."""
        return math.ceil(self.inputs.batches_per_epoch / self.config.train.accumulate)


def create_trainer(setup: Setup, *, anchor: Anchor | None = None, prefixes: Prefixes | None = None) -> Trainer:
    """The trainer of a trial before its first epoch."""
    config, counts, device, network = setup.config, setup.counts, setup.device, setup.network
    end = aligned_stage(config, backbone=network.backbone, plan=network.plan)
    return Trainer(
        config=config,
        device=device,
        inputs=replace(setup.inputs, soft_targets=soft_targets(setup)),
        state=create_state(setup),
        loss=create_loss(config.loss, counts=counts, shown=setup.shown_counts, device=device),
        balanced_loss=create_balanced_loss(config.loss, counts=counts, device=device),
        adaptation=Adaptation(config.adapt, end, setup.inputs.full.spec),
        anchor=anchor,
        prefixes=prefixes,
        measurer=Measurer(config=config, inputs=setup.inputs, prefixes=prefixes),
    )


def _check_finite(loss: Tensor, *, epoch: int) -> None:
    if not torch.isfinite(loss):
        raise DivergedError(f"the loss became {float(loss)} in epoch {epoch}")


def _grouped(batches: Iterator[Shown], *, size: int) -> Iterator[list[Shown]]:
    group: list[Shown] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
