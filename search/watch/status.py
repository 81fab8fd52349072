"""Watched spaces in words."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table

from search.space.spec import SearchSpec
from search.watch.plan import BAD_INPUT, CUT_OFF, GOOD
from search.watch.record import WatchRecord, is_watched, read_record


@dataclass(frozen=True)
class Standing:
    """A space, whether it is `refreshing`, `watching` or `not watched`, and its record if it ever was."""

    name: str
    state: str
    record: WatchRecord | None

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"name": self.name, "state": self.state, **(self.record.as_dict() if self.record else {})}


def standings(specs: Iterable[SearchSpec]) -> list[Standing]:
    """Where the watch of each space stands."""
    return [_standing(spec) for spec in specs]


def standings_table(rows: Iterable[Standing]) -> Table:
    """Spaces as rows."""
    table = Table("space", "state", "when", "last refresh", "decision", "next", box=None, pad_edge=False)
    for standing in rows:
        if standing.record is None:
            table.add_row(standing.name, standing.state, *["-"] * 4)
        else:
            ended = "-" if standing.record.ended is None else _local(standing.record.ended)
            upcoming = "-" if standing.state == "not watched" else _next(standing.record)
            table.add_row(
                standing.name, standing.state, standing.record.when, ended, _outcome(standing.record), upcoming
            )
    return table


def line(event: str, record: WatchRecord) -> str:
    """What has happened to a watched space, in a line: an event of :func:`search.watch.loop.watch`."""
    if event == "watching":
        return f"{record.name}: watched, {record.when}; next {_next(record)}"
    if event == "refreshing":
        return f"{record.name}: refresh begins"
    return f"{record.name}: {_outcome(record)}; next {_next(record)}"


def _standing(spec: SearchSpec) -> Standing:
    record = read_record(spec)
    is_at_work = record is not None and record.is_at_work
    state = "not watched" if not is_watched(spec) else "refreshing" if is_at_work else "watching"
    return Standing(spec.search.name, state, record)


def _outcome(record: WatchRecord) -> str:
    if record.exit_code is None:
        return "-"
    reasons = "; ".join(str(reason) for reason in (record.decision or {}).get("reasons", ()))
    return f"{_ending(record, code=record.exit_code)}{reasons and f': {reasons}'}"


def _ending(record: WatchRecord, *, code: int) -> str:
    if code == BAD_INPUT:
        return "bad input"
    if code in CUT_OFF:
        return "stopped before it was done"
    if code not in GOOD:
        ended = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        return f"failed, {ended}, {record.num_failures} in a row"
    return str((record.decision or {}).get("decision", "done" if code == 0 else "nothing to do"))


def _next(record: WatchRecord) -> str:
    if record.is_at_work:
        return "now"
    return "when something changes" if record.next_run is None else _local(record.next_run)


def _local(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")
