"""How many trials share a GPU, by the bytes and the seconds that the search's own epochs took there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from search.ledger.trials import EpochRecord, Trial
from search.space.values import Value

BYTES, TOTAL_BYTES = "usage/gpu_bytes", "usage/gpu_total_bytes"
SHARE = "usage/gpu_share"
# Of what a trial computes on. A number with a decimal point is a rate or a strength, which neither bytes nor seconds depend on.
SHAPED_BY = ("model.", "data.", "freeze.", "finetune.", "adapt.", "train.", "optimizer.name", "distill.")
DEPTH = "freeze.depth"  # the one that they depend on
ROOM = 0.92  # of a GPU's bytes: allocators of several processes leave holes
WORTH = 1.1  # images a second of a GPU with more trials, times those with fewer, from which on more is worth it


@dataclass(frozen=True, kw_only=True)
class Packed:
    """``together`` trials of a shape share a GPU, each of ``num_bytes`` at most; those are None where nothing was measured."""

    together: int
    num_bytes: float | None = None

    @property
    def share(self) -> float:
        """Each one's share, rounded down to what Ray counts in, so that ``together`` of them are no more than one."""
        return 1.0 if self.together == 1 else math.floor(10_000 / self.together) / 10_000


def packed(trials: Sequence[Trial], *, params: Mapping[str, Value], most: int) -> Packed:
    """How many trials of this shape share a GPU, ``most`` at most.

    The first has it alone, which measures what it takes. Then it is tried with twice as many as before, as far as their bytes
    fit, until the images of all of them together take no longer than a tenth less than with half as many, or one of
    them ran out of memory.
    """
    shape = _shape(params)
    epochs = [
        epoch for trial in trials if _shape({**trial.params, **trial.overrides}) == shape for epoch in _measured(trial)
    ]
    alone = [epoch for epoch in epochs if _together(epoch) == 1]
    if not alone:
        return Packed(together=1)
    num_bytes = max(epoch.metrics[BYTES] for epoch in alone)
    fitting = math.floor(ROOM * min(epoch.metrics[TOTAL_BYTES] for epoch in epochs) / max(1.0, num_bytes))
    fitting = max(1, min(fitting, most))
    together = 1
    while together < fitting:
        more = min(2 * together, fitting)
        beside = [epoch for epoch in epochs if _together(epoch) == more]
        if not beside:
            return Packed(together=more, num_bytes=num_bytes)
        if any("usage/halvings" in epoch.metrics for epoch in beside):
            break
        fewer = [epoch for epoch in epochs if _together(epoch) == together]
        if more / _pace(beside) < WORTH * together / _pace(fewer):
            break
        together = more
    return Packed(together=together, num_bytes=num_bytes)


def _measured(trial: Trial) -> Iterator[EpochRecord]:
    return (epoch for epoch in trial.epochs if BYTES in epoch.metrics and SHARE in epoch.metrics)


def _together(epoch: EpochRecord) -> int:
    return round(1 / epoch.metrics[SHARE])


def _pace(epochs: Sequence[EpochRecord]) -> float:
    """Seconds of an epoch, without those that frozen layers took, which one trial computes for all."""
    spare = ("usage/prefix_seconds", "usage/waiting_seconds")
    seconds = [epoch.metrics["usage/seconds"] - sum(epoch.metrics.get(name, 0.0) for name in spare) for epoch in epochs]
    return max(1e-3, median(seconds))


def _shape(params: Mapping[str, Value]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (path, repr(value))
        for path, value in params.items()
        if path.startswith(SHAPED_BY) and (path == DEPTH or not isinstance(value, float))
    )
