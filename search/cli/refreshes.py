"""The commands that search again when data arrive or time comes. What is heavy is imported when its command runs."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import (
    INTERRUPTED,
    Address,
    AllowCode,
    Data,
    Set,
    SpaceFile,
    Spaces,
    console,
    errors,
    print_json,
)
from search.space.loading import load, uri_note
from search.space.preflight import check_code
from search.space.spec import SearchSpec
from trainable.errors import OutageError, UserError
from trainable.json_text import to_json

if TYPE_CHECKING:
    from search.refresh.look import Answer


def watch(
    spaces: Spaces,
    cron: Annotated[
        str | None, typer.Option("--cron", help="When, by the local clocks: '0 3 * * *' is every night at three.")
    ] = None,
    every: Annotated[str | None, typer.Option("--every", help="Again after 30s, 10m, 6h or 2d.")] = None,
    on_change: Annotated[bool, typer.Option("--on-change", help="Whenever the data or a space file change.")] = False,
    jitter: Annotated[
        str | None,
        typer.Option("--jitter", help="At most so much later; else a tenth of the time between two, up to 5m."),
    ] = None,
    poll: Annotated[
        str | None,
        typer.Option(
            "--poll",
            help="With --on-change: how often data are looked at of which nobody tells, behind an address, on a network "
            "or in a list of images; else 5m.",
        ),
    ] = None,
    address: Address = None,
    allow_code: AllowCode = False,
    show_status: Annotated[
        bool, typer.Option("--status", help="Only say where the watch of each space stands.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON for each event; with --status one JSON document.")
    ] = False,
) -> None:
    """Refresh spaces again and again, by the clock or when their data change, one at a time.

    Exit codes: 130 it was stopped by SIGTERM or SIGINT, 1 it could not begin now, 2 a mistake in what was given.
    """
    from search.watch.loop import WallClock, load_spaces, local_zone, refresh_command
    from search.watch.loop import watch as watch_spaces
    from search.watch.schedule import parse_jitter, parse_when
    from search.watch.status import line, standings, standings_table

    specs = load_spaces(spaces)
    if show_status:
        rows = standings(specs.values())
        if as_json:
            print_json([row.as_dict() for row in rows])
        else:
            console.print(standings_table(rows))
        return
    for spec in specs.values():
        check_code(spec)
    when = parse_when(cron=cron, every=every, on_change=on_change, poll=poll, zone=local_zone)
    watch_spaces(
        specs,
        when=when,
        clock=WallClock(),
        command=refresh_command(address),
        jitter_seconds=parse_jitter(jitter, when=when),
        tell=lambda event, record: (
            typer.echo(to_json({"event": event, **record.as_dict()}))
            if as_json
            else console.print(line(event, record), highlight=False, markup=False)
        ),
    )
    sys.exit(130)


def refresh(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    address: Address = None,
    allow_code: AllowCode = False,
) -> None:
    """Do what new images ask for, once: nothing, ask the champion, refit it, or search again. One line of JSON.

    Exit codes: 0 something was done, 3 there is nothing to do now, 1 it failed and may be tried again, 2 a mistake in what was
    given, 130 interrupted by SIGTERM or SIGINT.
    """
    from search.refresh.look import Answer

    def say(answer: Answer) -> None:
        typer.echo(to_json({"space": str(space), **answer.as_dict()}))

    try:
        with _sigterm_as_ctrl_c():
            answer = _answer(space, overrides=overrides or (), data=data, address=address)
    except Exception as error:  # a fault of the program, which comes with its traceback
        say(Answer(decision="failed", reasons=(f"{type(error).__name__}: {error}",)))
        raise
    say(answer)
    sys.exit(answer.code)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM ends what is done as Ctrl-C does, which gives back what is held."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(space: Path, *, overrides: Sequence[str], data: str | None, address: str | None) -> "Answer":
    """What a refresh says, however it ends; why it ended too early is said on the screen too."""
    from search.ledger.refreshes import records_of
    from search.refresh.look import Answer, look_first

    try:
        spec = load(space, overrides, data=data)
        check_code(spec)
        if (note := uri_note(spec)) is not None:
            errors.print(f"note: {note}", markup=False)
        answer = look_first(spec, records=records_of(spec), now=datetime.now(UTC))
        return answer or _refresh_once(spec, address=address)
    except UserError as error:
        errors.print(f"error: {error}", markup=False)
        return Answer(decision="bad input", reasons=(str(error),), code=2)
    except OutageError as error:
        errors.print(f"error: {error}; to be tried again", markup=False, highlight=False)
        return Answer(decision="failed", reasons=(str(error),), code=1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != signal.SIGTERM:  # by which Ray ends a process, as in main()
            raise
        errors.print(INTERRUPTED)
        return Answer(decision="interrupted", reasons=(INTERRUPTED,), code=130)


def _refresh_once(spec: SearchSpec, *, address: str | None) -> "Answer":
    from search.tracking.tracker import Tracker, set_environment

    set_environment()
    from search.refresh.look import Answer
    from search.refresh.refresh import BrokenOffError, Surroundings
    from search.refresh.refresh import refresh as refresh_once
    from search.report.progress import Progress

    around = Surroundings(
        address=address,
        listeners=lambda: [Tracker(), Progress(errors)],
        tell=lambda line: errors.print(line, highlight=False, markup=False),
        now=lambda: datetime.now(UTC),
    )
    try:
        return refresh_once(spec, around=around)
    except BrokenOffError as error:
        if error.status != "interrupted":
            raise
        errors.print(f"error: {error}; to be tried again", markup=False, highlight=False)
        return Answer(decision="interrupted", reasons=(str(error),), code=130)
