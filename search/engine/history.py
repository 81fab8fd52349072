"""The trials of a search with what decisions ask of them, kept up to date as single trials change."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from json import dumps
from math import fsum, isnan
from typing import TypeVar, overload

from search.ledger.trials import Trial
from search.space.values import Value
from trainable.metrics import DIRECTIONS

Entry = tuple[
    bool, float, int
]  # no value, the value as a cost, the number: sorts the best first, the older of equals first

Ordered = TypeVar("Ordered", int, Entry)


class Ranking:
    """The trials that have reached a rung, by their best value up to it.

    A trial that early stopping completed before the rung counts with what it reached. One without a value, or with one that
    is no number, has reached the rung and has no place.
    """

    def __init__(self, metric: str, *, rung: int) -> None:
        self._metric = metric
        self._rung = rung
        self._entries: list[Entry] = []
        self._by_number: dict[int, Entry] = {}
        self._num_missing = 0

    def change(self, trial: Trial) -> None:
        """Take a trial's new record."""
        reached = trial.is_searched and bool(trial.epochs) and self._is_reached(trial)
        entry = _entry(trial, metric=self._metric, until=self._rung) if reached else None
        before = self._by_number.get(trial.number)
        if entry == before:
            return
        if before is not None:
            _remove(self._entries, before)
            self._num_missing -= before[0]
        if entry is None:
            del self._by_number[trial.number]
        else:
            insort(self._entries, entry)
            self._by_number[trial.number] = entry
            self._num_missing += entry[0]

    def _is_reached(self, trial: Trial) -> bool:
        if trial.audited_at is not None:
            return trial.audited_at >= self._rung
        return trial.last_epoch >= self._rung or trial.state == "COMPLETE"

    @property
    def num_reached(self) -> int:
        """How many trials have reached the rung."""
        return len(self._entries)

    @property
    def num_placed(self) -> int:
        """How many of them have a value."""
        return len(self._entries) - self._num_missing

    def place(self, number: int) -> int | None:
        """How many are better than this trial; None where it has no value here."""
        entry = self._by_number.get(number)
        return None if entry is None or entry[0] else bisect_left(self._entries, entry)

    def placed(self) -> Iterator[int]:
        """Numbers of the trials with a value, the best first."""
        return (number for missing, _, number in self._entries if not missing)

    def value(self, number: int) -> float | None:
        """The best value of this trial up to the rung; None where it has none here."""
        entry = self._by_number.get(number)
        return None if entry is None or entry[0] else self._value(entry)

    def worst(self) -> float | None:
        """The worst of these values; None where no trial has one."""
        return self._value(self._entries[self.num_placed - 1]) if self.num_placed else None

    def _value(self, entry: Entry) -> float:
        return -entry[1] if DIRECTIONS[self._metric] == "maximize" else entry[1]


class History(Sequence[Trial]):
    """Trials by number; whatever it answers is a function of them alone, not of the order in which it heard of changes.

    A change costs a few comparisons, not a look at every trial. ``unfinished`` are the numbers of open trials, ``underway`` those
    of them that have not reached their target; ``audited`` are, in place of these two, those that the search has stopped and kept
    open for an audit; ``ending`` are open ones whose last epoch was told to be their last; ``failed`` those that failed. All
    ascend. What an audit brings has no place in a ranking and makes no finalist; ``num_audited`` counts the audits that are
    over. A trial that is not searched, a probe, is among those that are open until it is measured; it has no place and counts
    for nothing but its seconds. ``num_searched`` counts the others.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials: list[Trial] = []
        self.unfinished: list[int] = []
        self.underway: list[int] = []
        self.audited: list[int] = []
        self.ending: list[int] = []
        self.failed: list[int] = []
        self.num_complete = 0
        self.num_pruned = 0
        self.num_audited = 0
        self.num_searched = 0
        self.num_epochs = 0
        self._seconds: list[float] = []
        self._gpu_seconds: list[float] = []
        self._tried: Counter[frozenset[tuple[str, Value]]] = Counter()
        self._rankings: dict[tuple[str, int], Ranking] = {}
        self._resting: dict[str, dict[int, list[Entry]]] = {}
        self.update(trials)

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "History":
        """Take the trials as they are where they are a history, else make one of them."""
        return trials if isinstance(trials, cls) else cls(trials)

    def update(self, trials: Iterable[Trial]) -> None:
        """Be of these trials from now on: those known before, perhaps changed, and new ones behind them."""
        for before, after in zip_longest(list(self._trials), trials):
            if after is not before:
                assert after is not None, "a trial is gone"
                self.change(after)

    def change(self, trial: Trial) -> None:
        """Take the newest record of a trial, or the first of the next one."""
        before = self._trials[trial.number] if trial.number < len(self._trials) else None
        if before is None:
            assert trial.number == len(self._trials)
            self._trials.append(trial)
            self._seconds.append(trial.seconds)
            self._gpu_seconds.append(trial.gpu_seconds)
        else:
            self._trials[trial.number] = trial
            self._seconds[trial.number] = trial.seconds
            self._gpu_seconds[trial.number] = trial.gpu_seconds
            self._count(before, by=-1)
        self._count(trial, by=1)
        self._try(before, trial)
        for ranking in self._rankings.values():
            ranking.change(trial)
        for metric, resting in self._resting.items():
            _rest(resting, before, trial, metric=metric)

    def seconds(self) -> float:
        """Seconds of work in all trials."""
        return fsum(self._seconds)

    def gpu_seconds(self) -> float:
        """Seconds of work in all trials, of epochs that shared a GPU by what was measured their share."""
        return fsum(self._gpu_seconds)

    def mean_share(self) -> float:
        """Of the seconds of work the part that they count for as seconds of a GPU."""
        return self.gpu_seconds() / self.seconds() if self.seconds() else 1.0

    def has_tried(self, params: Mapping[str, Value]) -> bool:
        """Whether a trial has exactly these values."""
        return _key(params) in self._tried

    def ranking(self, metric: str, *, rung: int) -> Ranking:
        """The order of the trials at a rung."""
        if (metric, rung) not in self._rankings:
            ranking = self._rankings[metric, rung] = Ranking(metric, rung=rung)
            for trial in self._trials:
                ranking.change(trial)
        return self._rankings[metric, rung]

    def best_resting(self, metric: str, *, epoch: int, besides: Container[int]) -> int | None:
        """The best open trial that has reached its target, which is this epoch, ``besides`` some; None without a value."""
        for missing, _, number in self._resting_at(metric).get(epoch, ()):
            if number not in besides:
                return None if missing else number
        return None

    def last_resting_epoch(self, metric: str, *, besides: Container[int]) -> int | None:
        """The highest epoch that is the target of an open trial which has reached it; None where there is none."""
        resting = self._resting_at(metric)
        return next(
            (
                epoch
                for epoch in sorted(resting, reverse=True)
                if any(number not in besides for _, _, number in resting[epoch])
            ),
            None,
        )

    def _resting_at(self, metric: str) -> dict[int, list[Entry]]:
        if metric not in self._resting:
            resting = self._resting[metric] = {}
            for trial in self._trials:
                _rest(resting, None, trial, metric=metric)
        return self._resting[metric]

    def _count(self, trial: Trial, *, by: int) -> None:
        """Count a record in where ``by`` is 1, out where it is -1."""
        place = insort if by > 0 else _remove
        if trial.state == "RUNNING":
            place(self.unfinished if trial.audited_at is None else self.audited, trial.number)
            if trial.last_epoch < trial.target and trial.audited_at is None:
                place(self.underway, trial.number)
            if trial.epochs and trial.epochs[-1].ended is not None:
                place(self.ending, trial.number)
        if not trial.is_searched:
            return
        self.num_searched += by
        if trial.state == "FAILED":
            place(self.failed, trial.number)
        self.num_complete += by * (trial.state == "COMPLETE" and trial.audited_at is None)
        self.num_audited += by * (trial.state == "COMPLETE" and trial.audited_at is not None)
        self.num_pruned += by * (trial.state == "PRUNED")
        self.num_epochs += by * trial.last_epoch

    def _try(self, before: Trial | None, after: Trial) -> None:
        """Take the values of a record for tried instead of those of the one before."""
        if not after.is_searched:
            return
        if before is not None:
            if before.params == after.params:
                return
            self._tried -= Counter([_key(before.params)])
        self._tried[_key(after.params)] += 1

    @overload
    def __getitem__(self, index: int) -> Trial: ...

    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...

    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        """The trial of a number, or those of several."""
        return self._trials[index]

    def __len__(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        """Trials by number."""
        return iter(self._trials)


def _rest(resting: dict[int, list[Entry]], before: Trial | None, after: Trial, *, metric: str) -> None:
    """Move a trial among those that have reached their targets, by epoch."""
    if before is not None and _rests(before):
        _remove(resting[before.last_epoch], _entry(before, metric=metric, until=before.last_epoch))
    if _rests(after):
        insort(resting.setdefault(after.last_epoch, []), _entry(after, metric=metric, until=after.last_epoch))


def _rests(trial: Trial) -> bool:
    is_open = trial.is_searched and trial.state == "RUNNING" and trial.audited_at is None
    return is_open and trial.last_epoch >= trial.target


def _entry(trial: Trial, *, metric: str, until: int) -> Entry:
    value = trial.best(metric, until=until)
    if value is None or isnan(value):
        return (True, 0.0, trial.number)
    return (False, -value if DIRECTIONS[metric] == "maximize" else value, trial.number)


def _remove(ordered: list[Ordered], entry: Ordered) -> None:
    del ordered[bisect_left(ordered, entry)]


def _key(params: Mapping[str, Value]) -> frozenset[tuple[str, Value]]:
    """Equal for equal values, and only for them."""
    return frozenset(
        (path, dumps(value) if isinstance(value, list | dict) else value) for path, value in params.items()
    )
