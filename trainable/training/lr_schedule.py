"""The learning rate as a function of the step and, where it waits for a plateau, of the results so far."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainable.config.trial import ScheduleConfig
from trainable.metrics import is_better


@dataclass(frozen=True)
class Schedule:
    """Two parts of a rate: ``course`` gives the share of its peak, ``reaction``, if there is one, a factor on that.

    The course is a function of the share of the updates after the warm-up, 0 to 1, the reaction of the results by epoch.
    """

    course: Callable[[float, ScheduleConfig], float]
    reaction: Callable[..., float] | None = None


def rate_factor(step: int, *, num_steps: int, warmup_steps: int, config: ScheduleConfig) -> float:
    """Share of the peak rate at update ``step`` of ``num_steps``, from 0; ``num_steps`` itself is after the last.

    A linear warm-up from ``warmup_start``, then ``config.name``'s course over the rest; results so far say nothing here,
    see :func:`reaction_factor`.
    """
    if step < warmup_steps:
        return config.warmup_start + (1 - config.warmup_start) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    return SCHEDULES[config.name].course(progress, config)


def reaction_factor(history: Mapping[int, float], *, metric: str, min_delta: float, config: ScheduleConfig) -> float:
    """What ``config.name`` makes of the rate after the epochs of ``history``; 1 where it does not look at them."""
    reaction = SCHEDULES[config.name].reaction
    return 1.0 if reaction is None else reaction(history, metric=metric, min_delta=min_delta, config=config)


def plateau_factor(history: Mapping[int, float], *, metric: str, min_delta: float, config: ScheduleConfig) -> float:
    """What ``plateau`` has made of the rate after the epochs of ``history``: ``factor`` for each standstill, at least ``final``.

    A standstill is ``patience`` epochs without a value better than the best by ``min_delta``; after it counting begins
    anew. Epochs that end within the warm-up are not counted.
    """
    best: float | None = None
    waited, factor = 0, 1.0
    for epoch in sorted(history):
        if epoch <= config.warmup_epochs:
            continue
        if is_better(history[epoch], best, metric=metric, by=min_delta):
            best, waited = history[epoch], 0
        else:
            waited += 1
        if waited == config.patience:
            factor, waited = factor * config.factor, 0
    return max(factor, config.final)


def _cosine(progress: float, config: ScheduleConfig) -> float:
    return _half_cosine(progress, start=1.0, end=config.final)


def _one_cycle(progress: float, config: ScheduleConfig) -> float:
    if progress < config.rise_share:
        return _half_cosine(progress / config.rise_share, start=config.warmup_start, end=1.0)
    return _half_cosine((progress - config.rise_share) / (1 - config.rise_share), start=1.0, end=config.final)


def _wsd(progress: float, config: ScheduleConfig) -> float:
    decayed = max(0.0, progress - (1 - config.decay_share)) / config.decay_share
    return 1 + (config.final - 1) * min(1.0, decayed)


def _step(progress: float, config: ScheduleConfig) -> float:
    return float(config.factor ** sum(progress >= milestone for milestone in config.milestones))


def _constant(_progress: float, _config: ScheduleConfig) -> float:
    return 1.0


def _half_cosine(share: float, *, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES = {
    "cosine": Schedule(_cosine),
    "one_cycle": Schedule(_one_cycle),
    "wsd": Schedule(_wsd),
    "step": Schedule(_step),
    "plateau": Schedule(_constant, reaction=plateau_factor),
    "constant": Schedule(_constant),
}
