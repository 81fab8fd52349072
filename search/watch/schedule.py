"""When something is due: intervals and cron expressions as functions of time, without a clock."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from trainable.errors import UserError
from trainable.seeds import derive

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DAYS = 366
LONGEST_JITTER_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
POLL = "5m"
CRON_FIELDS = {  # what stands in each
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31 or L",
    "month": "1-12 or JAN-DEC",
    "weekday": "0-7 or SUN-SAT",
}
SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # to see whether an expression comes true in the 50 years after


@dataclass(frozen=True)
class Every:
    """Due again and again after so many seconds, whatever the clocks show."""

    seconds: int

    def __str__(self) -> str:
        return f"every {_shortest(self.seconds)}"


@dataclass(frozen=True)
class Cron:
    """Due whenever the clocks of a time zone show what a cron expression of five fields says.

    As Debian's cron does it, a time that is left out when clocks go forward is due when they have, and one that comes twice
    when they go back is due once; but where minute or hour begins with `*`, it is due as often as the clocks show it.
    """

    expression: str
    zone: tzinfo

    def __str__(self) -> str:
        return f"cron {self.expression!r}"


@dataclass(frozen=True)
class OnChange:
    """Due when files change; where nothing tells of changes, again and again after so many seconds."""

    poll_seconds: int


When = Every | Cron


def parse_when(
    *, cron: str | None, every: str | None, on_change: bool, poll: str | None, zone: Callable[[], tzinfo]
) -> When | OnChange:
    """What the one of `--cron`, `--every` and `--on-change` says that is given; raises UserError for none and for two."""
    if (cron is not None) + (every is not None) + on_change != 1:
        raise UserError("watch: give one of --cron '0 3 * * *', --every 6h and --on-change, which say when to refresh")
    if poll is not None and not on_change:
        raise UserError("--poll: has an effect with --on-change alone; by the clock every refresh looks at the data")
    if cron is not None:
        return parse_cron(cron, zone=zone())
    return OnChange(parse_duration(poll or POLL, where="--poll")) if every is None else parse_every(every)


def parse_jitter(text: str | None, *, when: When | OnChange) -> float | None:
    """The seconds of `--jitter`, None without it; raises UserError where it has no effect."""
    if text is not None and isinstance(when, OnChange):
        raise UserError("--jitter: has an effect with --cron and --every alone; a change is followed at once")
    return None if text is None else parse_duration(text, where="--jitter", least=0)


def parse_duration(text: str, *, where: str, least: int = 1) -> int:
    """Seconds of `30s`, `10m`, `6h` or `2d`, a number from ``least`` on, at most 366 days; raises UserError for anything else."""
    match = re.fullmatch(r"([0-9]{1,18})([smhd])", text.strip(), flags=re.ASCII)
    if match is None:
        raise UserError(
            f"{where}: {text!r} is no time; must be a whole number with its unit, such as 30s, 10m, 6h or 2d"
        )
    if int(match[1]) < least:
        raise UserError(f"{where}: {text!r} is too short; must be {least}s or longer")
    seconds = int(match[1]) * SECONDS[match[2]]
    if seconds > LONGEST_DAYS * SECONDS["d"]:
        raise UserError(f"{where}: {text!r} is too long; must be {LONGEST_DAYS}d or shorter")
    return seconds


def parse_every(text: str) -> Every:
    """The interval of `--every`; raises UserError."""
    return Every(parse_duration(text, where="--every"))


def parse_cron(text: str, *, zone: tzinfo) -> Cron:
    """The times of `--cron`; raises UserError for an expression that is none or never comes true."""
    when = Cron(" ".join(text.split()), zone)
    if len(text.split()) != 5:
        raise UserError(
            f"--cron: {text!r} has {len(text.split())} fields; must be minute, hour, day, month and weekday, such as '0 3 * * *'"
        )
    for index, (name, right) in enumerate(CRON_FIELDS.items()):
        field = when.expression.split()[index]
        if _never_comes(" ".join(field if other == index else "*" for other in range(5))):
            raise UserError(f"--cron: {text!r}: {name} {field!r}; must be {right}, * or */n")
    if _never_comes(when.expression):
        raise UserError(f"--cron: {text!r} never comes true")
    return when


def _never_comes(expression: str) -> bool:
    try:
        next(CronSim(expression, SOME_TIME))
    except (CronSimError, StopIteration):
        return True
    return False


def next_due(when: When, *, after: datetime, last: datetime | None = None) -> datetime:
    """The first time due that is later than ``after``, in UTC; intervals count from ``last``, else from ``after``."""
    if isinstance(when, Cron):
        times = (due.astimezone(UTC) for due in CronSim(when.expression, after.astimezone(when.zone)))
        return next(due for due in times if due > after)  # an hour that comes twice would be due before it
    begin = (last or after).astimezone(UTC)
    interval = timedelta(seconds=when.seconds)
    return begin + ((after.astimezone(UTC) - begin) // interval + 1) * interval


def missed(when: When, *, last: datetime | None, now: datetime) -> bool:
    """Whether something was due since it last was, or never was; however often that is, it is one run."""
    return last is None or next_due(when, after=last) <= now


def jittered(when: When, *, due: datetime, name: str, most_seconds: float | None) -> datetime:
    """Somewhat later than due, so that not all begin at once: equally late whoever asks, another time later or earlier.

    At most ``most_seconds``; where that is None, a tenth of the time between two, and 5 minutes.
    """
    if most_seconds is None:
        between = (next_due(when, after=due) - due).total_seconds()
        most_seconds = min(between / 10, LONGEST_JITTER_SECONDS)
    drawn = derive(0, "jitter", name, due.astimezone(UTC).isoformat()) / 2**63
    return due + timedelta(seconds=drawn * most_seconds)


def pause_seconds(num_failures: int) -> float:
    """How long to wait after so many failures in a row: a minute, then twice as long each time, up to an hour."""
    return float(min(FIRST_PAUSE_SECONDS * 2 ** min(num_failures - 1, 10), LONGEST_PAUSE_SECONDS))


def _shortest(seconds: int) -> str:
    unit = next(unit for unit in reversed(SECONDS) if seconds % SECONDS[unit] == 0)
    return f"{seconds // SECONDS[unit]}{unit}"
