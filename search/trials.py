"""Trials as plain records: what the ledger holds, every decision reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from trainable.metrics import best_epoch

Value = None | bool | int | float | str | list[Any] | dict[str, Any]
State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAILED"]


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch: ``number`` counts from 1, ``metrics`` are named as in docs/design.md §2.10.

    ``ended`` says why it was the trial's last, or is None.
    """

    number: int
    metrics: Mapping[str, float]
    recorded: datetime
    ended: str | None = None


@dataclass(frozen=True)
class Trial:
    """One configuration with all that has happened to it.

    ``params`` are the searched values by dotted path as Optuna stores them, only the active ones; ``target`` is the
    epoch it was last asked to reach; ``origin`` says who proposed it (``try_first``, ``random``, ``tpe``…); ``reason``
    why it ended.
    """

    number: int
    params: Mapping[str, Value]
    state: State
    epochs: tuple[EpochRecord, ...]
    target: int
    origin: str
    attempts: int = 0
    reason: str | None = None
    run_id: str | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def last_epoch(self) -> int:
        """The last recorded epoch; 0 before the first."""
        return self.epochs[-1].number if self.epochs else 0

    def values(self, metric: str) -> dict[int, float]:
        """The metric by epoch."""
        return {epoch.number: epoch.metrics[metric] for epoch in self.epochs if metric in epoch.metrics}

    def best(self, metric: str, *, until: int | None = None) -> float | None:
        """The best value up to and including epoch ``until``; None where nothing was measured."""
        values = {number: value for number, value in self.values(metric).items() if until is None or number <= until}
        epoch = best_epoch(values, metric=metric)
        return None if epoch is None else values[epoch]

    @property
    def seconds(self) -> float:
        """Seconds of work in all its recorded epochs."""
        return sum(epoch.metrics.get("usage/seconds", 0.0) for epoch in self.epochs)


def best_trial(trials: Sequence[Trial], *, metric: str) -> Trial | None:
    """The trial with the best value of all epochs of all trials that did not fail; the oldest of equals."""
    candidates = {trial.number: trial for trial in trials if trial.state != "FAILED"}
    values = {number: value for number, trial in candidates.items() if (value := trial.best(metric)) is not None}
    number = best_epoch(values, metric=metric)
    return None if number is None else candidates[number]
