"""Trials as plain records: what the ledger holds, every decision reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import nan
from statistics import fmean
from typing import Any, Literal

from search.space.values import Value
from trainable.metrics import DIRECTIONS, best_epoch
from trainable.statistics.ranking import mean_ranks

State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAILED"]
POOLED_PROBE = "linear_probe"  # what the whole network's probe is called among the baselines
ZERO_SHOT = "zero_shot"  # what the network is called there whose head is the class names as text
PROBE = "probe"  # the origin of a trial that is a probe of frozen features, which nothing that is searched goes by


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch: ``number`` counts from 1, ``metrics`` are named as in docs/design.md §2.10.

    ``ended`` says why it was the trial's last, or is None.
    """

    number: int
    metrics: Mapping[str, float]
    recorded: datetime
    ended: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with all that has happened to it.

    ``params`` are the searched values by dotted path, only the active ones; ``overrides`` are values that it has in place of
    these and the search's; ``measured`` is what its network takes, where that was asked for; ``target`` is the epoch it was last
    asked to reach; ``origin`` says who proposed it (``try_first``, ``random``, ``tpe``…). ``attempts`` counts errors of its own,
    ``losses`` workers that were lost with it; ``failure`` is the last of either: its ``reason``, ``details``, ``epoch`` and
    whether it was ``of_machine``. ``reason`` says why it ended, of an open one why nothing of it is at work: the time was up;
    ``confirmed`` are the metrics that it came to with each other seed, where it is one of the last candidates and the search has
    trained these again. ``audited_at`` is the epoch at which the search stopped it, where it was kept open for an audit.
    """

    number: int
    params: Mapping[str, Value]
    state: State
    epochs: tuple[EpochRecord, ...]
    target: int
    origin: str
    overrides: Mapping[str, Value] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    losses: int = 0
    failure: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    confirmed: tuple[Mapping[str, float], ...] = ()
    audited_at: int | None = None

    @cached_property
    def _bests(self) -> dict[tuple[str, int | None], float | None]:
        """What :meth:`best` has given, which the report, MLflow and the screen ask of every trial again and again."""
        return {}

    @property
    def is_searched(self) -> bool:
        """Whether it is a point of the space, and not a probe that was trained beside them."""
        return self.origin != PROBE

    @property
    def standing(self) -> str:
        """How it stands in words: of a trial that is open whether it is `running`, `waiting` at its rung or `out of time`."""
        if self.state != "RUNNING":
            return self.state.lower()
        if self.reason:
            return "out of time"
        return "waiting" if self.last_epoch >= self.target else "running"

    @property
    def searched(self) -> dict[str, Value]:
        """The searched values that it was trained with: where it overrides one, that."""
        return {path: self.overrides.get(path, value) for path, value in self.params.items()}

    @property
    def last_epoch(self) -> int:
        """The last recorded epoch; 0 before the first."""
        return self.epochs[-1].number if self.epochs else 0

    def values(self, metric: str) -> dict[int, float]:
        """The metric by epoch."""
        return {epoch.number: epoch.metrics[metric] for epoch in self.epochs if metric in epoch.metrics}

    def best(self, metric: str, *, until: int | None = None) -> float | None:
        """The best value up to and including epoch ``until``; None where nothing was measured."""
        if (metric, until) not in self._bests:
            values = {
                number: value for number, value in self.values(metric).items() if until is None or number <= until
            }
            epoch = best_epoch(values, metric=metric)
            self._bests[metric, until] = None if epoch is None else values[epoch]
        return self._bests[metric, until]

    def at_best(self, name: str, *, metric: str) -> float:
        """Another metric at the best epoch by ``metric``; not a number where it was not measured."""
        epoch = best_epoch(self.values(metric), metric=metric)
        return self.values(name).get(epoch or 0, nan)

    def mean(self, name: str, *, metric: str) -> float:
        """Average a metric over its own seed and those that confirm it; not a number where it was not measured."""
        return fmean([self.at_best(name, metric=metric), *(metrics.get(name, nan) for metrics in self.confirmed)])

    @property
    def seconds(self) -> float:
        """Seconds of work in all its recorded epochs."""
        return sum(epoch.metrics.get("usage/seconds", 0.0) for epoch in self.epochs)

    @property
    def gpu_seconds(self) -> float:
        """Seconds of work in all recorded epochs, of one that shared a GPU by what was measured its share of them."""
        return sum(
            epoch.metrics.get("usage/seconds", 0.0) * epoch.metrics.get("usage/gpu_share", 1.0) for epoch in self.epochs
        )


def mean_share(trials: Sequence[Trial]) -> float:
    """Of the seconds of work the part that they count for as seconds of a GPU: 1 where none shared one by what was measured."""
    seconds = sum(trial.seconds for trial in trials)
    return sum(trial.gpu_seconds for trial in trials) / seconds if seconds else 1.0


def probe_name(trial: Trial) -> str:
    """What a trial that is a probe is called among the baselines."""
    stage = trial.overrides.get("model.until")
    if trial.overrides.get("finetune.solver") == "text":
        return ZERO_SHOT
    return POOLED_PROBE if stage is None else f"probe_{stage}"


def best_trial(trials: Sequence[Trial], *, metric: str, choose_by: Sequence[str] = ()) -> Trial | None:
    """The first of :func:`leaders`; None where none has a value."""
    return next(iter(leaders(trials, metric=metric, choose_by=choose_by)), None)


def leaders(trials: Sequence[Trial], *, metric: str, choose_by: Sequence[str] = ()) -> list[Trial]:
    """Trials that did not fail, best value of all their epochs first, the older of equals first.

    With ``choose_by`` those trained to the end come first, ordered by the mean of their ranks among them in these metrics,
    each at its best epoch by ``metric``; of equals the better by ``metric`` first. Before all come those that other seeds
    have confirmed, by what they have on average over their seeds.
    """
    ordered = _by_one_seed(trials, metric=metric, choose_by=choose_by)
    confirmed = [trial for trial in ordered if trial.confirmed]
    if not confirmed:
        return ordered
    means = {name: [trial.mean(name, metric=metric) for trial in confirmed] for name in choose_by or [metric]}
    return _by_ranks(confirmed, values=means) + [trial for trial in ordered if not trial.confirmed]


def _by_one_seed(trials: Sequence[Trial], *, metric: str, choose_by: Sequence[str]) -> list[Trial]:
    sign = -1.0 if DIRECTIONS[metric] == "maximize" else 1.0
    values = {trial.number: trial.best(metric) for trial in trials if trial.state != "FAILED"}
    costs = {number: sign * value for number, value in values.items() if value is not None}
    ordered = sorted(
        (trial for trial in trials if trial.number in costs), key=lambda trial: (costs[trial.number], trial.number)
    )
    finalists = [trial for trial in ordered if trial.state == "COMPLETE"]
    if not choose_by or not finalists:
        return ordered
    measured = {name: [trial.at_best(name, metric=metric) for trial in finalists] for name in choose_by}
    return _by_ranks(finalists, values=measured) + [trial for trial in ordered if trial.state != "COMPLETE"]


def _by_ranks(trials: Sequence[Trial], *, values: Mapping[str, Sequence[float]]) -> list[Trial]:
    """Trials by the mean of their ranks in these values, equals in the order that they have."""
    ranks = mean_ranks(values, directions=DIRECTIONS)
    return [trials[index] for _, index in sorted(zip(ranks, range(len(ranks)), strict=True))]
