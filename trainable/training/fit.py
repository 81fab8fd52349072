"""The story of one trial, told an epoch at a time."""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.model.layer_plan import Depth
from trainable.prefix.prefixes import Prefixes
from trainable.training.anchor import Anchor, fisher_information
from trainable.training.checkpoint import checkpoint_bytes
from trainable.training.device import peak_memory_bytes
from trainable.training.setup import Setup, prefixes_of, set_up
from trainable.training.solving import start_head
from trainable.training.trainer import DivergedError, Epoch, Trainer, create_trainer

__all__ = [
    "DivergedError",
    "Epoch",
    "Measured",
    "begin",
    "fit",
    "measure_epoch",
    "resume",
]


def fit(
    config: TrialConfig, *, resume_from: Path | None = None, depths: Sequence[Depth] = ()
) -> Generator[Epoch, None, str]:
    """Train as configured and yield every epoch; to stop, ask for no more.

    ``depths`` are those of ``freeze.depth`` that other trials may have: on the way through its own frozen layers this one keeps
    what they will ask for, where it keeps anything.

    The generator returns why training ended. Resuming from the checkpoint of any epoch gives the rest of the unbroken
    run, bit for bit on a CPU. Raises UserError for data or weights that cannot be used, DivergedError when the loss is
    no longer finite.
    """
    trainer = begin(config, depths=depths) if resume_from is None else resume(config, resume_from, depths=depths)
    while (ended := trainer.state.ended()) is None:
        yield trainer.one_epoch()
    return ended


def begin(config: TrialConfig, *, depths: Sequence[Depth] = ()) -> Trainer:
    """A trial that is ready for its first epoch. Raises UserError for data, weights or a device that cannot be used."""
    trainer = _ready(set_up(config), depths=depths)
    start_head(trainer.state.network, measurer=trainer.measurer)
    return trainer


def resume(config: TrialConfig, checkpoint: Path, *, depths: Sequence[Depth] = ()) -> Trainer:
    """A trial ready for the epoch after that of a checkpoint. Raises UserError as :func:`begin`, and BrokenCheckpointError."""
    trainer = _ready(set_up(config), depths=depths)
    trainer.state.load(checkpoint)
    return trainer


def _ready(setup: Setup, *, depths: Sequence[Depth]) -> Trainer:
    return create_trainer(setup, anchor=_anchor(setup), prefixes=prefixes_of(setup, depths=depths))


def _anchor(setup: Setup) -> Anchor | None:
    """L2-SP and EWC hold the backbone, as it was loaded; a head and light adapters have nowhere to be pulled to."""
    config, images, light = setup.config, setup.inputs.full, setup.network.plan.light
    named = setup.network.backbone.named_parameters()
    backbone = {f"backbone.{name}": parameter for name, parameter in named if name not in light}
    if config.finetune.l2_sp:
        return Anchor(backbone, strength=config.finetune.l2_sp)
    if config.finetune.ewc and images.old is not None:
        importance = fisher_information(setup.network, pack=images.old, spec=images.spec, config=config)
        return Anchor(backbone, strength=config.finetune.ewc, importance=importance)
    return None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an epoch takes, extrapolated from some updates.

    ``seconds`` are those of an epoch for which everything that frozen layers make of images is there, ``frozen_seconds`` what
    making it takes, of which there are ``views`` kinds; ``checkpoint_bytes`` and ``peak_memory_bytes`` of the trial.
    """

    seconds: float
    frozen_seconds: float
    views: int
    checkpoint_bytes: int
    peak_memory_bytes: int


def measure_epoch(config: TrialConfig, *, updates: int = 3) -> Measured:
    """Time some updates and as many evaluation batches, after one of each to warm up; nothing is kept."""
    setup = set_up(config)
    prefixes = replace(prefixes_of(setup), store=None)
    trainer = create_trainer(setup, prefixes=prefixes)
    measurer = trainer.measurer
    epoch = 1 + (config.data.early_epochs if config.data.early_size else 0)
    solves = config.finetune.solver != "gradient"
    steps = measurer.logits(setup.network, "train", epoch=epoch) if solves else _losses(trainer, epoch=epoch)
    training = _seconds_each(steps, prefixes=prefixes, count=updates)
    evaluation = _seconds_each(measurer.logits(setup.network, "val", epoch=epoch), prefixes=prefixes, count=updates)
    batches = math.ceil(measurer.num_measured / setup.inputs.batch_size)
    moved, state = setup.moved(config.train.epochs), trainer.state
    return Measured(
        seconds=training.rest * trainer.updates_per_epoch + evaluation.rest * batches,
        frozen_seconds=training.frozen * setup.inputs.num_images + evaluation.frozen * measurer.num_measured,
        views=trainer.num_views(epoch) or config.train.epochs,
        checkpoint_bytes=checkpoint_bytes(setup.network, moved=moved, average=state.average, optimizer=state.optimizer),
        peak_memory_bytes=peak_memory_bytes(setup.device),
    )


def _losses(trainer: Trainer, *, epoch: int) -> Iterator[Tensor]:
    return (losses["loss"] for losses in trainer.updates(epoch))


class _Seconds(NamedTuple):
    """What frozen layers take for an image, and all else for a step."""

    frozen: float
    rest: float


def _seconds_each(steps: Iterator[Tensor], *, prefixes: Prefixes, count: int) -> _Seconds:
    """Mean seconds of a step, each waited for: of ``count`` after the first, or of the first where it is alone."""
    moments, spent = [time.perf_counter()], [prefixes.take_spent()]
    for value in steps:
        value.sum().item()
        moments.append(time.perf_counter())
        spent.append(prefixes.take_spent())
        if len(moments) > count + 1:
            break
    del spent[0]
    warm = len(moments) > 2
    computing = sum(one.computing for one in spent[1 if warm else 0 :])
    images = sum(one.images for one in spent)
    frozen = sum(one.computing for one in spent) / images if images else 0.0
    elapsed = moments[-1] - moments[1 if warm else 0]
    return _Seconds(frozen, max(0.0, elapsed - computing) / max(1, len(moments) - (2 if warm else 1)))
