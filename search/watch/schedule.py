"""When something is due: intervals and cron expressions as functions of time, without a clock."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from trainable.errors import UserError
from trainable.seeds import derive

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_JITTER_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
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
    when they go back is due once.
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


def parse_when(*, cron: str | None, every: str | None, on_change: bool, poll: str, zone: tzinfo) -> When | OnChange:
    """What the one of `--cron`, `--every` and `--on-change` says that is given; raises UserError for none and for two."""
    if (cron is not None) + (every is not None) + on_change != 1:
        raise UserError("watch: give one of --cron '0 3 * * *', --every 6h and --on-change, which say when to refresh")
    if cron is not None:
        return parse_cron(cron, zone=zone)
    return OnChange(parse_duration(poll, where="--poll")) if every is None else parse_every(every)


def parse_duration(text: str, *, where: str, least: int = 1) -> int:
    """Seconds of `30s`, `10m`, `6h` or `2d`, a number from ``least`` on; raises UserError for anything else."""
    found = re.fullmatch(r"([0-9]{1,7})([smhd])", text.strip(), flags=re.ASCII)
    if found is None or int(found[1]) < least:
        raise UserError(
            f"{where}: {text!r} is no time; must be a whole number with its unit, such as 30s, 10m, 6h or 2d"
        )
    return int(found[1]) * SECONDS[found[2]]


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
    try:
        next(CronSim(when.expression, SOME_TIME))
    except CronSimError as error:
        raise UserError(f"--cron: {text!r}: {str(error).lower()}") from None
    except StopIteration:
        raise UserError(f"--cron: {text!r} never comes true") from None
    return when


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
