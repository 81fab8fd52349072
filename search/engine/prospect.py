"""What more trials are expected to improve, from the values of those so far.

A new trial is taken for one more draw from the tail of the newest values, which is a generalised Pareto distribution above a
high threshold (Pickands 1975), fitted by probability-weighted moments (Hosking and Wallis 1987). Values of a metric are
bounded, so the tail is taken for exponential at most; one that would end below its largest value ends as far above it as that
is above the second (Robson and Whitlock 1964). The draws of a sampler that learns get better; so where the record has grown in
the second half of the trials, no less is expected than that it grows on with the logarithm of their number, as the records of
an exponential tail do (Gumbel 1958).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from search.ledger.trials import Trial
from trainable.metrics import DIRECTIONS

LEAST_TRIALS = 20  # below which nothing is expected for sure
TAIL_SHARE = 0.25  # of the newest values, at least five of them
STEPS = 400  # of the integrals


def expected_gain(trials: Sequence[Trial], *, metric: str, num_trials: int) -> float | None:
    """By how much ``num_trials`` more are expected to improve the best, in units of the metric; None while too little is known.

    Trials are taken in their order; of one that failed it is known that it brought nothing. Before one is trained to the end
    nothing is known of what training brings.
    """
    values = [-cost for cost in searched_costs(trials, metric=metric)]
    is_any_whole = any(trial.state == "COMPLETE" and trial.is_searched for trial in trials)
    if len(values) < LEAST_TRIALS or not is_any_whole:
        return None
    if num_trials <= 0:
        return 0.0
    return max(
        _gain_of_tail(values, num_trials=num_trials),
        _gain_of_trend(values, num_trials=num_trials),
    )


def searched_costs(trials: Sequence[Trial], *, metric: str) -> list[float]:
    """The best value of each trial that has one, as a cost, and infinity for each that failed."""
    sign = -1.0 if DIRECTIONS[metric] == "maximize" else 1.0
    costs = []
    for trial in trials:
        value = None if trial.state == "FAILED" else trial.best(metric)
        if not trial.is_searched or (value is None and trial.state != "FAILED"):
            continue
        costs.append(math.inf if value is None or math.isnan(value) else sign * value)
    return costs


def integral_of_best(exceeds: Sequence[float], *, step: float) -> float:
    """The mean of what is above 0 of a variable, from its probabilities to exceed 0, ``step``, twice that and so on."""
    return step * math.fsum((one + other) / 2 for one, other in pairwise(exceeds))


def _gain_of_tail(values: Sequence[float], *, num_trials: int) -> float:
    """The integral of the probability that the best of the new trials exceeds what is above the record."""
    newest = values[-max(LEAST_TRIALS, len(values) // 2) :]
    count = max(5, round(TAIL_SHARE * len(newest)))
    ordered = sorted(value for value in newest if math.isfinite(value))
    if len(ordered) <= count:
        return math.inf
    threshold = ordered[-count - 1]
    shape, scale = _generalised_pareto([value - threshold for value in ordered[-count:]])
    if scale <= 0:
        return 0.0
    above = max(values) - threshold
    room = scale / -shape - above if shape < 0 else 40 * scale
    if room <= 0:
        return 0.0
    step = room / (STEPS - 1)
    share = count / len(newest)
    exceeds = [
        1 - (1 - share * _survival(above + index * step, shape=shape, scale=scale)) ** num_trials
        for index in range(STEPS)
    ]
    return integral_of_best(exceeds, step=step)


def _generalised_pareto(tail: Sequence[float]) -> tuple[float, float]:
    """Shape, at most 0, and scale of values above their threshold, in ascending order."""
    first = fmean(tail)
    second = fmean((1 - (rank - 0.35) / len(tail)) * value for rank, value in enumerate(tail, start=1))
    if first <= 2 * second:
        return 0.0, first
    shape, scale = 2 - first / (first - 2 * second), 2 * first * second / (first - 2 * second)
    if shape >= 0:  # heavier than a bounded value can be
        return 0.0, first
    end = 2 * tail[-1] - tail[-2]
    return (shape, scale) if scale / -shape >= tail[-1] else (-scale / end, scale)


def _survival(value: float, *, shape: float, scale: float) -> float:
    if shape == 0:
        return math.exp(-value / scale)
    return float(max(0.0, 1 + shape * value / scale) ** (-1 / shape))


def _gain_of_trend(values: Sequence[float], *, num_trials: int) -> float:
    """What the record gains where it goes on as in the second half of the trials."""
    best, before = max(values), max(values[: len(values) // 2])
    return 0.0 if best == before else (best - before) / math.log(2) * math.log1p(num_trials / len(values))
