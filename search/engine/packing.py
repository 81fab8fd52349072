"""How many trials share a GPU, by the bytes and the seconds that the search's own epochs took there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from search.ledger.trials import EpochRecord, Trial
from search.space.values import Value

BYTES, TOTAL_BYTES = "usage/gpu_bytes", "usage/gpu_total_bytes"
SHARE = "usage/gpu_share"
# Of what a trial computes on: values, but of a number with a decimal point whether it is on. How strong or how fast something
# is changes neither bytes nor seconds.
SHAPED_BY = ("model.", "data.", "freeze.", "finetune.", "adapt.", "augment.", "train.", "distill.", "optimizer.name")
DEPTH = "freeze.depth"  # a number that does
OUT_OF_MEMORY = {"usage/halvings", "usage/over_share"}
ROOM = 0.92  # of a GPU's bytes: allocators of several processes leave holes
WORTH = 1.1  # images a second of a GPU with more trials, times those with fewer, from which on more is worth it


@dataclass(frozen=True, kw_only=True)
class Packed:
    """``together`` trials of a kind share a GPU, each of ``num_bytes`` at most; those are None where nothing was measured."""

    together: int
    num_bytes: float | None = None

    @property
    def share(self) -> float:
        """Each one's share, rounded down to what Ray counts in, so that ``together`` of them are no more than one."""
        return 1.0 if self.together == 1 else math.floor(10_000 / self.together) / 10_000


def packed(trials: Sequence[Trial], *, params: Mapping[str, Value], most: int) -> Packed:
    """How many trials of this kind share a GPU, ``most`` at most.

    The first has it alone, which measures what it takes. Then twice as many as before are tried, as far as their bytes fit,
    for as many epochs as they are, and kept where together they get through a tenth more images a second than half as many
    and none ran out of memory.
    """
    kind = _kind(params)
    epochs = [
        epoch for trial in trials if _kind({**trial.params, **trial.overrides}) == kind for epoch in _measured(trial)
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
        if any(OUT_OF_MEMORY & epoch.metrics.keys() for epoch in beside):
            break
        if len(beside) < more:
            return Packed(together=more, num_bytes=num_bytes)
        fewer = [epoch for epoch in epochs if _together(epoch) == together]
        if more / _pace(beside) < WORTH * together / _pace(fewer):
            break
        together = more
    return Packed(together=together, num_bytes=num_bytes)


def kind_text(params: Mapping[str, Value]) -> str:
    """What makes trials one kind, for people: ``freeze.depth 0.5, model.name 'resnet18'``; empty where all are."""
    return ", ".join(f"{path} {value}" for path, value in sorted(_kind(params)))


def _measured(trial: Trial) -> Iterator[EpochRecord]:
    return (epoch for epoch in trial.epochs if BYTES in epoch.metrics and SHARE in epoch.metrics)


def _together(epoch: EpochRecord) -> int:
    return round(1 / epoch.metrics[SHARE])


def _pace(epochs: Sequence[EpochRecord]) -> float:
    """Seconds of an epoch, without those that frozen layers took, which one trial computes for all.

    The first of a leg starts the process too, and often had the GPU alone; it counts where there is no other.
    """
    later = [epoch for epoch in epochs if "usage/start_seconds" not in epoch.metrics] or epochs
    spare = ("usage/prefix_seconds", "usage/waiting_seconds")
    seconds = [epoch.metrics["usage/seconds"] - sum(epoch.metrics.get(name, 0.0) for name in spare) for epoch in later]
    return max(1e-3, median(seconds))


def _kind(params: Mapping[str, Value]) -> frozenset[tuple[str, str]]:
    return frozenset((path, _told(path, value)) for path, value in params.items() if path.startswith(SHAPED_BY))


def _told(path: str, value: Value) -> str:
    if isinstance(value, float) and path != DEPTH:
        return "on" if value > 0 else "off"
    return repr(value)
