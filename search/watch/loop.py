"""The loop that refreshes spaces when it is time, one after the other."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from types import FrameType
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from search.ledger.refreshes import data_of
from search.space.loading import load
from search.space.spec import SearchSpec
from search.watch.changes import can_follow, follow_changes
from search.watch.plan import BAD_INPUT, Plan, begun, changed, ended, opened, set_back
from search.watch.record import WatchRecord, open_record, watched, write_record
from search.watch.schedule import Every, OnChange, When
from trainable.config.trial import DataConfig
from trainable.data.readers.domains import data_sets
from trainable.data.readers.read import data_format, data_path
from trainable.errors import OutageError, UserError

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0  # from a change to the refresh, so that the changes of one copy are one
LOCAL_ZONE = Path("/etc/localtime")
LONGEST_WAIT_SECONDS = 60.0  # after it a machine that slept, or whose clock was set, has noticed

Command = Callable[[Path], list[str]]
Tell = Callable[[str, WatchRecord], object]


class Clock(Protocol):
    """The time, as far as the loop knows it."""

    def now(self) -> datetime:
        """The time, with its zone."""

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or earlier when it is woken."""

    def wake(self) -> None:
        """Let :meth:`wait` return: called from other threads and, amid anything, by a signal."""


class WallClock:
    """The time of this machine."""

    def __init__(self) -> None:
        self._woken: SimpleQueue[None] = SimpleQueue()  # whose put() may interrupt its own get(), as no lock may

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or earlier when it is woken."""
        with suppress(Empty):
            self._woken.get(timeout=seconds)

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        self._woken.put(None)


def local_zone() -> tzinfo:
    """The time zone of this machine, with the days when its clocks change.

    That is what TZ names or the file whose path it is, else /etc/localtime, else UTC. Raises UserError for a TZ that is neither.
    """
    name = os.environ.get("TZ", str(LOCAL_ZONE) if LOCAL_ZONE.exists() else "").removeprefix(":")
    if not name:
        return UTC
    try:
        if not name.startswith("/"):
            return ZoneInfo(name)
        with Path(name).open("rb") as file:
            return ZoneInfo.from_file(file)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(f"TZ: no time zone {name!r}; --cron needs one such as Europe/Berlin") from error


@dataclass(eq=False, kw_only=True)
class WatchedSpace:
    """A watched space: its file, when it is due, which paths are followed, where it stands."""

    path: Path
    spec: SearchSpec
    plan: Plan
    followed: tuple[Path, ...]
    record: WatchRecord

    def seconds_left(self, now: datetime) -> float:
        """Until it is refreshed next; infinite where only a change will do."""
        return float("inf") if self.record.next_run is None else (self.record.next_run - now).total_seconds()


def refresh_command(address: str | None) -> Command:
    """The command that refreshes a space once, on the Ray cluster of an address if there is one."""
    cluster = [] if address is None else ["--address", address]
    return lambda path: [sys.executable, "-m", "search", "refresh", str(path), *cluster]


def load_spaces(paths: Sequence[Path]) -> dict[Path, SearchSpec]:
    """The searches of space files. Raises UserError for a mistake in one, and for two of one name."""
    specs = {path: load(path) for path in dict.fromkeys(paths)}
    by_place: dict[tuple[Path, str], Path] = {}
    for path, spec in specs.items():
        first = by_place.setdefault((Path(spec.search.folder).absolute(), spec.search.name), path)
        if first != path:
            raise UserError(f"{path}: search.name: {spec.search.name!r} is that of {first} too; give each its own")
    return specs


def watch(
    specs: dict[Path, SearchSpec],
    *,
    when: When | OnChange,
    clock: Clock,
    command: Command,
    jitter_seconds: float | None = None,
    tell: Tell,
) -> None:
    """Refresh spaces when it is time, each by a ``command`` that runs beside, until SIGTERM or SIGINT.

    A refresh at work is then sent a SIGTERM and waited for. ``tell`` hears of each space that it is `watching`, then
    `refreshing` and `refreshed` in turn; `watching` again where it is planned anew. Raises HeldError where another process
    watches one of them; UserError or OutageError where no record of one can be written when it begins.
    """
    with ExitStack() as held:
        for spec in specs.values():
            held.enter_context(watched(spec))
        spaces = [_space(path, spec, when=when, jitter_seconds=jitter_seconds) for path, spec in specs.items()]
        loop = _Loop(spaces, clock=clock, command=command, tell=tell)
        held.enter_context(_signals_to(loop.stop))
        for space in spaces:
            held.enter_context(_follow_changes(space, when=when, changed=loop.note_change))
        loop.run()


class _Loop:
    """What refreshes the spaces; at most one refresh is at work at any time."""

    def __init__(self, spaces: Sequence[WatchedSpace], *, clock: Clock, command: Command, tell: Tell) -> None:
        self._spaces = spaces
        self._clock = clock
        self._command = command
        self._tell = tell
        self._changes: SimpleQueue[WatchedSpace] = SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> None:
        """Refresh until stopped."""
        now = self._clock.now()
        for space in self._spaces:
            record = opened(space.record, plan=space.plan, now=now)
            write_record(record, spec=space.spec)
            self._put("watching", space, record)
        while not self._stopped:
            self._heed_changes()
            before, now = now, self._clock.now()
            if now < before - timedelta(seconds=LONGEST_WAIT_SECONDS):
                self._plan_again(now)
            first = min(self._spaces, key=lambda space: space.seconds_left(now))
            if first.seconds_left(now) <= 0:
                self._refresh(first)
            else:
                self._clock.wait(min(first.seconds_left(now), LONGEST_WAIT_SECONDS))

    def stop(self, number: int) -> None:
        """Refresh no more; called by a signal, amid anything. A second Ctrl-C is one for the refresh too, which heeds it."""
        is_second = self._stopped and number == signal.SIGINT
        self._stopped = True
        if self._child is not None:
            self._child.send_signal(signal.SIGINT if is_second else signal.SIGTERM)
        self._clock.wake()

    def note_change(self, space: WatchedSpace) -> None:
        """Take note that data of a space have changed; called from other threads."""
        self._changes.put(space)
        self._clock.wake()

    def _heed_changes(self) -> None:
        soon = self._clock.now() + timedelta(seconds=QUIET_SECONDS)
        while not self._changes.empty():
            space = self._changes.get()
            space.record = changed(space.record, soon=soon)

    def _plan_again(self, now: datetime) -> None:
        for space in self._spaces:
            self._put("watching", space, set_back(space.record, plan=space.plan, now=now))

    def _refresh(self, space: WatchedSpace) -> None:
        self._put("refreshing", space, begun(space.record, now=self._clock.now()))
        moved = _moved(space)
        if moved is None:
            code, decision = self._run(self._command(space.path))
        else:
            code, decision = BAD_INPUT, {"decision": "bad input", "reasons": [moved]}
        record = ended(space.record, plan=space.plan, now=self._clock.now(), code=code, decision=decision)
        self._put("refreshed", space, record)

    def _run(self, command: list[str]) -> tuple[int, dict[str, Any] | None]:
        """The exit code of a command, and what it wrote as JSON."""
        with TemporaryFile() as output:  # a pipe would be open as long as anything that the command leaves behind
            # A session of its own: a Ctrl-C reaches it once, as our SIGTERM.
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True)
            self._child = child
            if self._stopped:
                child.terminate()
            code = child.wait()
            self._child = None
            output.seek(0)
            return code, _decision(output.read().decode(errors="replace"))

    def _put(self, event: str, space: WatchedSpace, record: WatchRecord) -> None:
        space.record = record
        try:
            write_record(record, spec=space.spec)
        except (
            UserError,
            OutageError,
        ) as error:  # a full disk, for a while; what matters is in the refreshes' own records
            logger.warning("%s: %s; watched all the same", record.name, error)
        self._tell(event, record)


def _space(path: Path, spec: SearchSpec, *, when: When | OnChange, jitter_seconds: float | None) -> WatchedSpace:
    if not isinstance(when, OnChange):
        record = open_record(spec, path=path, when=str(when))
        return WatchedSpace(path=path, spec=spec, plan=Plan(when, jitter_seconds), followed=(), record=record)
    own_sets = [data_set for _, data_set in data_sets(data_of(spec)) if data_set.path]
    followed = tuple(Path(place) for place in (str(path), *map(data_path, own_sets)) if can_follow(place))
    poll = None if all(map(_tells_all, own_sets)) and can_follow(str(path)) else Every(when.poll_seconds)
    when_text = "on change" if poll is None else f"on change, and {poll}"
    return WatchedSpace(
        path=path,
        spec=spec,
        plan=Plan(poll, jitter_seconds),
        followed=followed,
        record=open_record(spec, path=path, when=when_text),
    )


def _tells_all(data: DataConfig) -> bool:
    """Whether following the path of a data set is enough: a list of images does not change with them."""
    try:
        return can_follow(data_path(data)) and data_format(data) != "manifest"
    except (UserError, OutageError):  # it is not there yet, and may be a list
        return False


def _moved(space: WatchedSpace) -> str | None:
    """In which place a space's file is about another search or other data than those that are watched; None for the same."""
    try:
        now = load(space.path)
    except UserError:  # the refresh will say so
        return None
    places, others = _places(space.spec), _places(now)
    changes = [path for path in places if places[path] != others[path]]
    return f"{space.path}: {changes[0]} has changed since the watch began; restart the watch" if changes else None


def _places(spec: SearchSpec) -> dict[str, Any]:
    data = [data_path(data_set) for _, data_set in data_sets(data_of(spec))]
    return {"search.name": spec.search.name, "search.folder": Path(spec.search.folder).absolute(), "data.path": data}


@contextmanager
def _follow_changes(
    space: WatchedSpace, *, when: When | OnChange, changed: Callable[[WatchedSpace], None]
) -> Iterator[None]:
    if not isinstance(when, OnChange):
        yield
        return
    ignored = [Path(folder) for folder in (space.spec.search.folder, data_of(space.spec).cache) if folder is not None]
    with follow_changes(
        space.followed, ignored=ignored, poll_seconds=when.poll_seconds, changed=lambda: changed(space)
    ):
        yield


@contextmanager
def _signals_to(stop: Callable[[int], None]) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT call ``stop`` with their number."""

    def heed(number: int, frame: FrameType | None) -> None:
        stop(number)

    before = {number: signal.signal(number, heed) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _decision(output: str) -> dict[str, Any] | None:
    """The last line of a refresh's output, if that is a JSON object."""
    try:
        document = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return document if isinstance(document, dict) else None
