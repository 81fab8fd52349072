"""What pretrained weights are worth: a short training with them against one from scratch."""

import time
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from trainable.config.trial import TrialConfig, used_batch_size
from trainable.errors import UserError
from trainable.training.fit import DivergedError, fit
from trainable.training.recipes import from_scratch

EPOCHS = 5
SEEDS = (0, 1)
MIN_UPDATES = 10  # an epoch: few images in large batches would leave both arms where they began
METRICS = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Course:
    """One training: the wall time at the end of each epoch, seconds from the start, and validation scores by metric."""

    seconds: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]

    def best(self, metric: str) -> float:
        """The best epoch's score."""
        return max(self.scores[metric])

    def seconds_to(self, target: float) -> float:
        """Wall time until balanced accuracy reaches a target; infinite where it never does."""
        reached = zip(self.seconds, self.scores["balanced_accuracy"], strict=True)
        return next((seconds for seconds, value in reached if value >= target), float("inf"))


@dataclass(frozen=True)
class Pair:
    """Both trainings of one seed."""

    seed: int
    pretrained: Course
    scratch: Course


@dataclass(frozen=True)
class TransferGain:
    """Pretrained less scratch, at equal epochs, data and seeds."""

    epochs: int
    pairs: tuple[Pair, ...]

    def gain(self, metric: str = "balanced_accuracy") -> float:
        """Acc_TL - Acc_scratch of the best epochs, averaged over seeds; below 0 the transfer is negative."""
        return fmean(pair.pretrained.best(metric) - pair.scratch.best(metric) for pair in self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``seconds_to_target`` is the time to the best balanced accuracy that both arms reach."""
        arms = {name: self._arm(name) for name in ("pretrained", "scratch")}
        gains = {metric: self.gain(metric) for metric in METRICS}
        return {"epochs": self.epochs, "seeds": [pair.seed for pair in self.pairs], "gain": gains, **arms}

    def _arm(self, name: str) -> dict[str, float]:
        courses = [(getattr(pair, name), _common_target(pair)) for pair in self.pairs]
        return {metric: fmean(course.best(metric) for course, _ in courses) for metric in METRICS} | {
            "seconds": fmean(course.seconds[-1] for course, _ in courses),
            "seconds_to_target": fmean(course.seconds_to(target) for course, target in courses),
        }


def transfer_gain(
    config: TrialConfig, *, num_images: int, epochs: int = EPOCHS, seeds: tuple[int, ...] = SEEDS
) -> TransferGain:
    """Train the trial's backbone on its data with its weights, all layers, the backbone's rate a tenth of the head's, and
    from scratch.

    The batch size is lowered where ``num_images`` training images would have fewer than ``MIN_UPDATES`` batches; what is for a
    longer training, early stopping, small images first and a running average, is left out. Raises UserError where the trial has
    no pretrained weights or a training diverges.
    """
    check_comparable(config)
    batch = used_batch_size(config.train.model_copy(update={"min_updates": MIN_UPDATES}), num_images=num_images)
    train = {"epochs": epochs, "patience": None, "ema": 0.0, "ema_start": 0, "batch_size": batch}
    short = TrialConfig.model_validate(
        {
            "data": config.data.model_dump() | {"early_size": None, "early_epochs": 0},
            "model": config.model.model_dump(),
            "train": config.train.model_dump() | train,
            "finetune": {"strategy": "full"},
            "optimizer": {"backbone_multiplier": 0.1},
        }
    )
    pairs = []
    for seed in seeds:
        seeded = short.model_copy(update={"seed": seed})
        pairs.append(Pair(seed, _course(seeded), _course(from_scratch(seeded))))
    return TransferGain(epochs, tuple(pairs))


def check_comparable(config: TrialConfig) -> None:
    """Raise UserError where the trial has no pretrained weights."""
    if config.model.weights == "random":
        raise UserError("compare: model.weights is random, so there is nothing to compare with training from scratch")


def _course(config: TrialConfig) -> Course:
    started, course = time.perf_counter(), Course((), dict.fromkeys(METRICS, ()))
    try:
        for epoch in fit(config):
            seconds = (*course.seconds, time.perf_counter() - started)
            scores = {name: (*before, epoch.evaluation.metrics[name]) for name, before in course.scores.items()}
            course = replace(course, seconds=seconds, scores=scores)
    except DivergedError as error:
        raise UserError(
            f"compare: training with finetune.strategy {config.finetune.strategy} diverged ({error})"
        ) from error
    return course


def _common_target(pair: Pair) -> float:
    return min(pair.pretrained.best("balanced_accuracy"), pair.scratch.best("balanced_accuracy"))
