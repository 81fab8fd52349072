"""The learning rate as a function of the step and, where it waits for a plateau, of the results so far."""

import math
from collections.abc import Mapping

from trainable.config.trial import ScheduleConfig
from trainable.metrics import is_better


def rate_factor(step: int, *, num_steps: int, warmup_steps: int, config: ScheduleConfig) -> float:
    """Share of the peak rate at update ``step`` of ``num_steps``, from 0; ``num_steps`` itself is after the last.

    A linear warm-up from ``warmup_start``, then ``config.name``'s course over the rest; ``plateau`` stays at the peak here,
    see :func:`plateau_factor`.
    """
    if step < warmup_steps:
        return config.warmup_start + (1 - config.warmup_start) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    if config.name == "cosine":
        return _cosine(progress, start=1.0, end=config.final)
    if config.name == "one_cycle":
        if progress < config.rise_share:
            return _cosine(progress / config.rise_share, start=config.warmup_start, end=1.0)
        return _cosine((progress - config.rise_share) / (1 - config.rise_share), start=1.0, end=config.final)
    if config.name == "wsd":
        decayed = max(0.0, progress - (1 - config.decay_share)) / config.decay_share
        return 1 + (config.final - 1) * min(1.0, decayed)
    if config.name == "step":
        return float(config.factor ** sum(progress >= milestone for milestone in config.milestones))
    return 1.0


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


def _cosine(share: float, *, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
