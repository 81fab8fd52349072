"""When a watched space is refreshed next, as a function of its record and the time."""

import signal
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from search.watch.record import WatchRecord
from search.watch.schedule import When, jittered, missed, next_due, pause_seconds

GOOD = (0, 3)  # exit codes of a refresh that did something, or found nothing to do
BAD_INPUT = 2
CUT_OFF = (130, -signal.SIGTERM)


@dataclass(frozen=True)
class Plan:
    """When a space is due, None where only changes are waited for; ``jitter_seconds`` as of :func:`jittered`."""

    when: When | None
    jitter_seconds: float | None = None


def opened(record: WatchRecord, *, plan: Plan, now: datetime) -> WatchRecord:
    """The record when a watch begins: refreshed at once where a time was missed or the last refresh was cut off.

    Where changes are waited for, too, since nobody has told of those before.
    """
    cut_off = record.is_at_work or record.exit_code in CUT_OFF
    record = replace(record, is_at_work=False)
    if plan.when is None:
        return replace(record, retry_at=now, next_due=None, next_run=now)
    if missed(plan.when, last=record.due, now=now):
        return replace(record, retry_at=None, next_due=now, next_run=now)
    due = next_due(plan.when, after=now, last=record.due)
    return _with_next_run(record, plan=plan, due=due, retry_at=now if cut_off else record.retry_at)


def begun(record: WatchRecord, *, now: datetime) -> WatchRecord:
    """The record when a refresh begins, for a time due or between two."""
    due = record.next_due if record.next_due is not None and record.next_due <= now else record.due
    return replace(record, is_at_work=True, due=due, began=now, retry_at=None, next_run=None)


def ended(record: WatchRecord, *, plan: Plan, now: datetime, code: int, decision: dict[str, Any] | None) -> WatchRecord:
    """The record when a refresh has ended with an exit code and the decision it wrote, if any.

    Times that were due while it ran are left out. A failed one is tried again before the next time, after pauses that grow;
    one that asked for it when it asked; one with bad input at the next time.
    """
    failed = code not in (*GOOD, BAD_INPUT)
    num_failures = record.num_failures + 1 if failed else 0
    pause = pause_seconds(num_failures) if failed else (decision or {}).get("retry_after_seconds")
    record = replace(record, is_at_work=False, ended=now, exit_code=code, decision=decision, num_failures=num_failures)
    return _with_next_run(
        record,
        plan=plan,
        due=None if plan.when is None else next_due(plan.when, after=now, last=record.due),
        retry_at=None if pause is None else now + timedelta(seconds=pause),
    )


def changed(record: WatchRecord, *, soon: datetime) -> WatchRecord:
    """The record when data have changed: refreshed soon."""
    return record if record.next_run is not None and record.next_run <= soon else replace(record, next_run=soon)


def set_back(record: WatchRecord, *, plan: Plan, now: datetime) -> WatchRecord:
    """The record when the clock has been set back: planned by the right time, at once where something else than that was due."""
    is_extra = record.next_run is not None and (record.next_due is None or record.next_run < record.next_due)
    due = None if plan.when is None else next_due(plan.when, after=now, last=record.due)
    return _with_next_run(record, plan=plan, due=due, retry_at=now if is_extra else None)


def _with_next_run(record: WatchRecord, *, plan: Plan, due: datetime | None, retry_at: datetime | None) -> WatchRecord:
    times = [] if retry_at is None else [retry_at]
    if due is not None and plan.when is not None:
        times.append(jittered(plan.when, due=due, name=record.name, most_seconds=plan.jitter_seconds))
    return replace(record, retry_at=retry_at, next_due=due, next_run=min(times, default=None))
