"""The loop with real commands as refreshes; only the clock is faked."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import TZPATH

import pytest
from typer.testing import CliRunner

from search.cli.app import make_app
from search.ledger.lease import HeldError, is_held
from search.watch.loop import WallClock, load_spaces, local_zone, watch
from search.watch.plan import changed
from search.watch.record import is_watched, open_record, read_record, watched
from search.watch.schedule import Every, OnChange, parse_cron
from search.watch.status import line, standings
from trainable.errors import UserError

START = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = 3600
SCRIPT = """
import json, os, sys, time
from pathlib import Path
name, place = Path(sys.argv[1]).stem, Path(sys.argv[2])
calls = place / f"{name}.calls"
number = len(calls.read_text()) if calls.exists() else 0
calls.write_text("." * (number + 1))
log = (place / "log").open("a")
print(name, "begins", file=log, flush=True)
answers = json.loads((place / "answers.json").read_text()).get(name, [[3, {"decision": "skip", "reasons": ["same"]}]])
code, said = answers[min(number, len(answers) - 1)]
"""
ANSWER = """
print("a line that is no decision")
print(json.dumps(said))
print(name, "ends", file=log, flush=True)
sys.exit(code) if code >= 0 else os.kill(os.getpid(), -code)
"""
SLOW = """
import signal
def end(*_):
    print(name, "is stopped", file=log, flush=True)
    time.sleep(0.3)  # as an epoch is kept
    print(name, "ends", file=log, flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print(name, "works", file=log, flush=True)
time.sleep(60)
"""


class FakeClock:
    """Waits in no time; when it is ``until``, the process gets the SIGTERM that ends a watch."""

    def __init__(self, *, hours, start=START, step=None):
        self.time = start
        self.until = start + timedelta(hours=hours)
        self.step = step

    def now(self):
        return self.time

    def wait(self, seconds):
        assert seconds > 0
        self.time += timedelta(seconds=seconds) if self.step is None else self.step
        if self.time >= self.until:
            os.kill(os.getpid(), signal.SIGTERM)

    def wake(self):
        pass


class Place:
    """A folder with spaces, and a command in the place of the refresh that answers what it is told to."""

    def __init__(self, folder):
        self.folder = folder
        self.events = []
        self.answers = {}
        (folder / "script.py").write_text(SCRIPT + ANSWER)

    def space(self, name, *, data="images"):
        path = self.folder / f"{name}.yaml"
        path.write_text(
            textwrap.dedent(
                f"""
                search: {{name: {name}, trials: 2, folder: {self.folder / "searches"}}}
                scheduler: {{max_epochs: 3}}
                base:
                  data: {{path: "{data if "://" in data else self.folder / data}"}}
                  model: {{name: test_resnet, weights: random}}
                vary: {{optimizer.lr: {{log: [1e-4, 1e-2]}}}}
                """
            )
        )
        return path

    def command(self, path):
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        return [sys.executable, "-S", str(self.folder / "script.py"), str(path), str(self.folder)]

    def watch(self, *paths, when, clock, jitter_seconds=0.0, tell=None):
        def note(event, record):
            self.events.append((event, clock.now(), record))
            (tell or (lambda *_: None))(event, record)

        watch(
            load_spaces(paths), when=when, clock=clock, command=self.command, jitter_seconds=jitter_seconds, tell=note
        )

    def begins(self, name):
        """Hours after the start of every refresh."""
        times = [at for event, at, record in self.events if event == "refreshing" and record.name == name]
        return [(at - START).total_seconds() / HOUR for at in times]

    def log(self):
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def record(self, path):
        (spec,) = load_spaces([path]).values()
        return read_record(spec)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def wait_for(what, *, seconds=20):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def test_a_space_is_refreshed_at_once_and_then_whenever_it_is_due(place):
    space = place.space("cells")
    place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=25))
    assert place.begins("cells") == [0, 6, 12, 18, 24]
    record = place.record(space)
    assert (record.name, record.space, record.when) == ("cells", str(space), "every 6h")
    assert (record.pid, record.exit_code, record.num_failures) == (os.getpid(), 3, 0)
    assert record.decision == {"decision": "skip", "reasons": ["same"]}
    assert record.due == record.began == record.ended == START + timedelta(hours=24)
    assert record.next_due == record.next_run == START + timedelta(hours=30)


def test_cron_times_are_kept_with_a_jitter_that_is_the_same_each_time_it_is_asked(place):
    def begins(folder, *, jitter_seconds):
        folder.mkdir()
        fresh = Place(folder)
        when = parse_cron("0 3 * * *", zone=UTC)
        fresh.watch(fresh.space("cells"), when=when, clock=FakeClock(hours=66), jitter_seconds=jitter_seconds)
        return fresh.begins("cells")

    assert begins(place.folder / "a", jitter_seconds=0) == [0, 15, 39, 63]
    late = begins(place.folder / "b", jitter_seconds=600)
    assert late == begins(place.folder / "c", jitter_seconds=600)
    after = [one - due for one, due in zip(late[1:], (15, 39, 63), strict=True)]
    assert all(0 < one < 600 / HOUR for one in after)
    assert len(set(after)) == 3


def test_spaces_are_refreshed_one_after_the_other(place):
    spaces = [place.space(name) for name in ("one", "two", "three")]
    place.watch(*spaces, when=Every(HOUR), clock=FakeClock(hours=3.5))
    log = place.log()
    assert len(log) == 2 * 3 * 4
    for begin, end in zip(log[::2], log[1::2], strict=True):
        assert end == begin.replace("begins", "ends")
    assert [place.begins(name) for name in ("one", "two", "three")] == [[0, 1, 2, 3]] * 3


def test_a_failed_refresh_is_tried_again_after_pauses_that_grow_up_to_the_next_time(place):
    space = place.space("cells")
    place.answers = {"cells": [[1, {"decision": "error"}]]}
    place.watch(space, when=Every(HOUR // 4), clock=FakeClock(hours=0.49))
    minutes = [60 * hours for hours in place.begins("cells")]
    assert minutes == pytest.approx([0, 1, 3, 7, 15])
    assert place.record(space).num_failures == 5


def test_after_a_success_the_pauses_begin_anew(place):
    space = place.space("cells")
    place.answers = {"cells": [[1, {}], [1, {}], [0, {}], [1, {}]]}
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.04))
    assert [60 * hours for hours in place.begins("cells")] == pytest.approx([0, 1, 3, 60, 61])


@pytest.mark.parametrize(("code", "said"), [(-9, "killed by signal 9"), (1, "exit code 1"), (77, "exit code 77")])
def test_a_refresh_that_crashes_does_not_end_the_loop(place, code, said):
    spaces = [place.space("bad"), place.space("good")]
    place.answers = {"bad": [[code, {}]]}
    place.watch(*spaces, when=Every(HOUR), clock=FakeClock(hours=2.5))
    assert place.begins("good") == [0, 1, 2]
    record = place.record(spaces[0])
    assert record.exit_code == code
    assert said in line("refreshed", record)


def test_bad_input_waits_for_the_next_time_and_others_go_on(place):
    spaces = [place.space("bad"), place.space("good")]
    place.answers = {"bad": [[2, None], [2, None], [3, {"decision": "skip"}]]}
    place.watch(*spaces, when=Every(HOUR), clock=FakeClock(hours=2.5))
    assert place.begins("bad") == place.begins("good") == [0, 1, 2]
    said = [line(event, record) for event, _, record in place.events if event == "refreshed" and record.name == "bad"]
    assert [one.split("; ")[0] for one in said] == ["bad: bad input", "bad: bad input", "bad: skip"]


def test_a_refresh_that_asks_for_it_is_begun_again_after_that_time(place):
    space = place.space("cells")
    place.answers = {"cells": [[3, {"decision": "wait", "retry_after_seconds": 90.0}], [3, {}]]}
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5))
    assert place.begins("cells") == [0, 0.025, 1]
    place.events.clear()
    (place.folder / "cells.calls").unlink()
    place.answers = {"cells": [[3, {"decision": "wait", "retry_after_seconds": 86400}], [3, {}]]}
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=3.5, start=START + timedelta(hours=2)))
    assert place.begins("cells") == [2, 3, 4, 5]


def test_times_missed_while_nobody_watched_are_one_run_at_once(place):
    space = place.space("cells")
    when = parse_cron("0 */6 * * *", zone=UTC)
    place.watch(space, when=when, clock=FakeClock(hours=7))
    place.watch(space, when=when, clock=FakeClock(hours=13, start=START + timedelta(hours=80)))
    assert place.begins("cells") == [0, 6, 80, 84, 90]


def test_nothing_is_begun_at_once_where_nothing_was_missed(place):
    space = place.space("cells")
    for hours in (0, 1, 2, 3, 4, 5.75, 7, 8):
        place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=0.5, start=START + timedelta(hours=hours)))
    assert place.begins("cells") == [0, 6]


def test_a_pause_after_a_failure_goes_on_when_the_watch_does(place):
    space = place.space("cells")
    place.answers = {"cells": [[1, {}], [1, {}], [3, {}]]}
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5 / 60))
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=0.5, start=START + timedelta(minutes=2)))
    assert [60 * hours for hours in place.begins("cells")] == pytest.approx([0, 1, 3])


def test_times_that_pass_while_a_machine_sleeps_are_one_run(place):
    space = place.space("cells")
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=15, step=timedelta(hours=5.5)))
    assert place.begins("cells") == [0, 5.5, 11]


def test_a_refresh_that_was_cut_off_is_begun_again_at_once(place):
    space = place.space("cells")
    place.answers = {"cells": [[130, None], [3, {}]]}
    place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=0.001))
    place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=1, start=START + timedelta(hours=0.01)))
    assert place.begins("cells") == [0, 0.01]


def test_a_refresh_whose_watch_was_killed_is_begun_again_at_once(place):
    space = place.space("cells")

    def power_cut(event, record):
        if event == "refreshing":
            raise SystemError

    with pytest.raises(SystemError):
        place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=1), tell=power_cut)
    place.watch(space, when=Every(6 * HOUR), clock=FakeClock(hours=1, start=START + timedelta(hours=0.5)))
    assert place.begins("cells") == [0, 0.5]


class SetRight(FakeClock):
    """A clock that is years ahead until it is waited for."""

    def wait(self, seconds):
        if self.time > self.until:
            self.time = START
        super().wait(seconds)


@pytest.mark.parametrize(
    ("when", "hours"), [(Every(6 * HOUR), [6, 12]), (parse_cron("0 */6 * * *", zone=UTC), [6, 12])]
)
def test_a_clock_that_is_set_back_does_not_put_refreshes_off(place, when, hours):
    ahead = START + timedelta(days=1461)
    clock = SetRight(hours=15)
    clock.time = ahead
    place.watch(place.space("cells"), when=when, clock=clock)
    assert place.begins("cells") == [1461 * 24, *hours]
    assert [event for event, _, _ in place.events[3:5]] == ["watching", "refreshing"]


def test_a_failed_refresh_is_tried_again_at_once_when_the_clock_is_set_back(place):
    space = place.space("cells")
    place.answers = {"cells": [[1, {}], [3, {}]]}
    clock = SetRight(hours=1)
    clock.time = START + timedelta(days=1461)
    place.watch(space, when=Every(6 * HOUR), clock=clock)
    assert len(place.begins("cells")) == 2
    assert place.begins("cells")[1] < 0.02


def test_a_record_that_cannot_be_written_does_not_end_the_loop(place, caplog):
    space = place.space("cells")
    folder = place.folder / "searches" / ".watch"
    in_the_way = folder / "cells.json"

    def disturb(event, record):
        if event == "refreshing":
            in_the_way.unlink()
            in_the_way.mkdir()
        if event == "refreshed" and in_the_way.exists():
            in_the_way.rmdir()

    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5), tell=disturb)
    assert place.begins("cells") == [0, 1]
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("cells: search.folder: cannot write ")
    assert "\n" not in caplog.messages[0]
    in_the_way.mkdir()
    with pytest.raises(UserError, match=r"^search.folder: cannot write .*cells.json"):
        place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5))


def test_a_folder_of_records_that_is_removed_is_made_again(place):
    space = place.space("cells")
    place.watch(
        space,
        when=Every(HOUR),
        clock=FakeClock(hours=1.5),
        tell=lambda event, _: shutil.rmtree(place.folder / "searches") if event == "watching" else None,
    )
    assert place.begins("cells") == [0, 1]
    assert place.record(space).ended == START + timedelta(hours=1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: cells", "name: tiles", "search.name"),
        ("/searches", "/elsewhere", "search.folder"),
        ("/images", "/others", "data.path"),
    ],
)
def test_a_space_that_becomes_another_is_not_refreshed_under_the_lock_of_the_first(place, old, new, said):
    space = place.space("cells")

    def edit(event, record):
        if event == "refreshed":
            space.write_text(space.read_text().replace(old, new))

    before = load_spaces([space])[space]
    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5), tell=edit)
    assert place.begins("cells") == [0, 1]
    assert place.log() == ["cells begins", "cells ends"]
    record = read_record(before)
    assert record.exit_code == 2
    assert line("refreshed", record).startswith(
        f"cells: bad input: {space}: {said} has changed since the watch began; restart the watch; next "
    )


def test_any_other_change_of_a_space_is_followed(place):
    space = place.space("cells")

    def edit(event, record):
        space.write_text(space.read_text().replace("trials: 2", "trials: 3"))

    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5), tell=edit)
    assert place.record(space).exit_code == 3


def test_what_a_refresh_said_is_shown_however_it_ended(place):
    spaces = [place.space("bad"), place.space("broken")]
    place.answers = {
        "bad": [[2, {"decision": "bad input", "reasons": ["data.path: is empty"]}]],
        "broken": [[1, {"decision": "failed", "reasons": ["the store fails"]}]],
    }
    place.watch(*spaces, when=Every(HOUR), clock=FakeClock(hours=0.01))
    shown = CliRunner().invoke(make_app(), ["watch", *map(str, spaces), "--status"]).stdout
    assert "bad input: data.path: is empty" in shown
    assert "failed, exit code 1, 1 in a row: the store fails" in shown


def test_the_last_outcome_is_shown_while_the_next_refresh_is_at_work(place):
    space = place.space("cells")
    shown = []

    def look(event, record):
        if event == "refreshing":
            shown.append(CliRunner().invoke(make_app(), ["watch", str(space), "--status"]).stdout.splitlines()[1])

    place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1.5), tell=look)
    first, second = shown
    ended = START.astimezone().isoformat(sep=" ", timespec="seconds")
    assert first.split() == ["cells", "refreshing", "every", "1h", "-", "-", "now"]
    assert second.split() == ["cells", "refreshing", "every", "1h", *ended.split(), "skip:", "same", "now"]


def test_changes_one_after_the_other_do_not_put_a_refresh_off(place):
    record = open_record(*load_spaces([place.space("cells")]).values(), path=Path("cells.yaml"), when="on change")
    first = changed(record, soon=START)
    assert first.next_run == START
    assert changed(first, soon=START + timedelta(seconds=1)) == first
    assert changed(first, soon=START - timedelta(seconds=1)).next_run == START - timedelta(seconds=1)


def test_a_second_watcher_of_a_space_is_told_who_watches_it(place):
    specs = load_spaces([place.space("cells"), place.space("other")])
    command = [sys.executable, "-c", HOLD, *map(str, specs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=r"^cells: is watched already, by another process$"):
            watch(specs, when=Every(60), clock=FakeClock(hours=1), command=place.command, tell=print)
        assert [one.state for one in standings(specs.values())] == ["watching", "not watched"]
        process.kill()
    assert not any(map(is_watched, specs.values()))
    place.watch(*specs, when=Every(60), clock=FakeClock(hours=0.01))


HOLD = """
import sys, time
from pathlib import Path
from search.watch.record import watched
from search.watch.loop import load_spaces
(first, _) = load_spaces([Path(one) for one in sys.argv[1:]]).values()
with watched(first):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_spaces_of_one_name_are_refused(place):
    first = place.space("cells")
    second = first.with_name("copy.yaml")
    second.write_text(first.read_text())
    with pytest.raises(UserError, match="copy.yaml: search.name: 'cells' is that of .*cells.yaml too"):
        load_spaces([first, second])
    assert len(load_spaces([first, first])) == 1


def test_the_record_is_whole_whenever_it_is_read(place):
    space = place.space("cells")
    (spec,) = load_spaces([space]).values()
    states = []
    place.watch(
        space,
        when=Every(HOUR),
        clock=FakeClock(hours=1.5),
        tell=lambda event, record: states.append((event, read_record(spec) == record, standings([spec])[0].state)),
    )
    at_work = [("refreshing", True, "refreshing"), ("refreshed", True, "watching")]
    assert states == [("watching", True, "watching"), *at_work, *at_work]
    assert standings([spec])[0].state == "not watched"
    path = place.folder / "searches" / ".watch" / "cells.json"
    assert json.loads(path.read_text())["next_run"] == "2026-01-15T14:00:00+00:00"
    path.write_text("{")
    assert read_record(spec) is None


def test_what_a_refresh_leaves_running_does_not_hold_the_loop_up(place):
    (place.folder / "script.py").write_text(
        "import subprocess\n"
        + SCRIPT
        + "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3)'])\n"
        + ANSWER
    )
    began = time.monotonic()
    place.watch(place.space("cells"), when=Every(HOUR), clock=FakeClock(hours=0.5))
    assert time.monotonic() - began < 2.5
    assert place.events[-1][2].exit_code == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_refresh_gets_a_sigterm_and_is_waited_for(place, number):
    (place.folder / "script.py").write_text(SCRIPT + SLOW)
    spaces = [place.space("cells"), place.space("other")]
    stopper = threading.Thread(
        target=lambda: (wait_for(lambda: "cells works" in place.log()), os.kill(os.getpid(), number))
    )
    stopper.start()
    place.watch(*spaces, when=Every(HOUR), clock=WallClock())
    stopper.join()
    assert place.log() == ["cells begins", "cells works", "cells is stopped", "cells ends"]
    record = place.record(spaces[0])
    assert (record.exit_code, record.ended is None) == (130, False)
    assert place.record(spaces[1]).began is None
    assert signal.getsignal(number) is not None


def test_a_signal_just_before_a_refresh_begins_is_not_lost(place):
    (place.folder / "script.py").write_text(SCRIPT + SLOW)
    space = place.space("cells")
    began = time.monotonic()
    command = place.command

    def hit(path):
        os.kill(os.getpid(), signal.SIGTERM)
        return command(path)

    place.command = hit
    place.watch(space, when=Every(HOUR), clock=WallClock())
    assert time.monotonic() - began < 10
    assert place.record(space).exit_code in (130, -signal.SIGTERM)


def test_a_refresh_has_a_session_of_its_own_which_the_terminal_does_not_interrupt(place):
    (place.folder / "script.py").write_text(SCRIPT + "said = {'own': os.getsid(0) == os.getpid()}\n" + ANSWER)
    place.watch(place.space("cells"), when=Every(HOUR), clock=FakeClock(hours=0.5))
    assert place.events[-1][2].decision == {"own": True}


def test_a_second_ctrl_c_is_one_for_the_refresh(place):
    (place.folder / "script.py").write_text(SCRIPT + SLOW.replace("time.sleep(0.3)", "time.sleep(60)"))

    def interrupt_twice():
        for sign in ("cells works", "cells is stopped"):
            wait_for(lambda sign=sign: sign in place.log())
            os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=interrupt_twice)
    stopper.start()
    space = place.space("cells")
    place.watch(space, when=Every(HOUR), clock=WallClock())
    stopper.join()
    assert place.log() == ["cells begins", "cells works", "cells is stopped"]
    assert place.record(space).ended is not None


def test_a_file_where_the_folder_should_be_is_one_line(place):
    space = place.space("cells")
    (place.folder / "searches").write_text("")
    with pytest.raises(UserError, match="^search.folder: cannot write .*(Not a directory|File exists)"):
        place.watch(space, when=Every(HOUR), clock=FakeClock(hours=1))


@contextmanager
def started(*arguments, **options):
    """A real watch, which ends with the block however that ends."""
    command = [sys.executable, "-m", "search", "watch", *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", [["--every", "6h"], ["--on-change"]])
def test_an_idle_watch_leaves_within_a_second(place, number, how):
    space = place.space("cells")  # whose images are missing: the refresh says so and ends
    with started(space, *how, stderr=subprocess.PIPE) as process:
        events = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [one["event"] for one in events] == ["watching", "refreshing", "refreshed"]
        assert events[-1]["exit_code"] == 2
        time.sleep(0.5)  # until it waits
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 1
    assert process.returncode == 130
    assert said.startswith(f"error: data.path: '{place.folder}/images' does not exist")  # the refresh's own words
    assert said.count("\n") == 1


@pytest.mark.slow
def test_the_decision_of_a_real_refresh_is_heard(place, draw_image):
    for number in range(12):
        draw_image(place.folder / "images" / "ab"[number % 2] / f"{number}.png", number=number)
    space = place.space("cells")
    with started(space, "--every", "6h") as process:
        events = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert (events[-1]["exit_code"], events[-1]["decision"]["decision"]) == (3, "wait")  # the images are seconds old
    again = datetime.fromisoformat(events[-1]["next_run"]) - datetime.fromisoformat(events[-1]["ended"])
    assert again.total_seconds() == events[-1]["decision"]["retry_after_seconds"] <= 60


@pytest.mark.slow
@pytest.mark.long
def test_a_real_search_is_stopped_after_the_epochs_at_work(place, draw_image):
    for number in range(24):
        draw_image(place.folder / "images" / "ab"[number % 2] / f"{number}.png", number=number)
    space = place.space("cells")
    text = space.read_text().replace("max_epochs: 3", "max_epochs: 1000, min_epochs: 1000")
    space.write_text(f"{text}tracking: {{uri: 'sqlite:///{place.folder}/mlflow.db'}}\nrefresh: {{settle_seconds: 0}}\n")
    journal = place.folder / "searches" / "cells" / "ledger.journal"
    with started(space, "--every", "6h") as process:
        wait_for(lambda: journal.exists() and journal.read_text().count("\n") > 50, seconds=120)
        process.terminate()
        events = [json.loads(row) for row in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 130
    assert [(one["event"], one["exit_code"]) for one in events[1:]] == [("refreshing", None), ("refreshed", 130)]
    assert not is_held(journal.parent)  # nothing drives the search any more


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "watch: give one of --cron"),
        (["--every", "6h", "--on-change"], "watch: give one of --cron"),
        (["--every", "6h", "--cron", "* * * * *"], "watch: give one of --cron"),
        (["--every", "soon"], "--every: 'soon' is no time"),
        (["--every", "0m"], "--every: '0m' is too short"),
        (["--every", "9999999d"], "--every: '9999999d' is too long"),
        (["--every", "6h", "--jitter", "9999999d"], "--jitter: '9999999d' is too long"),
        (["--every", "6h", "--poll", "5m"], "--poll: has an effect with --on-change alone"),
        (["--on-change", "--jitter", "5m"], "--jitter: has an effect with --cron and --every alone"),
        (["--cron", "soon"], "--cron: 'soon' has 1 fields"),
        (["--every", "6h", "--jitter", "5"], "--jitter: '5' is no time"),
        (["--on-change", "--poll", "x"], "--poll: 'x' is no time"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(place, options, said):
    found = CliRunner().invoke(make_app(), ["watch", str(place.space("cells")), *options])
    assert isinstance(found.exception, UserError)
    assert str(found.exception).startswith(said)


def test_a_mistake_in_any_space_is_said_before_anything_is_begun(place):
    good, bad = place.space("good"), place.space("bad")
    bad.write_text(bad.read_text().replace("trials: 2", "trials: many"))
    found = CliRunner().invoke(make_app(), ["watch", str(good), str(bad), "--every", "6h"])
    assert isinstance(found.exception, UserError)
    assert str(found.exception).startswith(f"{bad}: search.trials: ")
    assert not (place.folder / "searches").exists()


def test_the_status_says_where_every_space_stands(place):
    spaces = [place.space("cells"), place.space("never")]
    place.watch(spaces[0], when=Every(HOUR), clock=FakeClock(hours=0.5))
    (spec, _) = load_spaces(spaces).values()
    runner = CliRunner()
    with watched(spec):
        shown = runner.invoke(make_app(), ["watch", *map(str, spaces), "--status"]).stdout
        found = json.loads(runner.invoke(make_app(), ["watch", *map(str, spaces), "--status", "--json"]).stdout)
    assert [(one["name"], one["state"]) for one in found] == [("cells", "watching"), ("never", "not watched")]
    assert (found[0]["exit_code"], found[0]["next_due"]) == (3, "2026-01-15T13:00:00+00:00")
    rows = shown.splitlines()
    assert rows[1].split()[:4] == ["cells", "watching", "every", "1h"]
    assert "skip: same" in rows[1]
    assert rows[2].split() == ["never", "not", "watched", "-", "-", "-", "-"]


def test_a_change_is_followed_by_a_refresh_and_one_during_it_by_another(place):
    space = place.space("cells")
    images = place.folder / "images"
    images.mkdir()
    (place.folder / "script.py").write_text(SCRIPT + "time.sleep(0.5)\n" + ANSWER)

    def change_and_stop():
        wait_for(lambda: len(place.log()) == 2)
        (images / "1.png").write_bytes(b"1")
        wait_for(lambda: len(place.log()) == 3)  # the second is at work
        for number in range(50):
            (images / f"more{number}.png").write_bytes(b"2")
        wait_for(lambda: len(place.log()) == 6)
        time.sleep(2.5)
        os.kill(os.getpid(), signal.SIGTERM)

    changer = threading.Thread(target=change_and_stop)
    changer.start()
    place.watch(space, when=OnChange(poll_seconds=300), clock=WallClock())
    changer.join()
    assert place.log() == ["cells begins", "cells ends"] * 3
    record = place.record(space)
    assert (record.when, record.next_due, record.next_run) == ("on change", None, None)
    assert line("watching", record) == "cells: watched, on change; next when something changes"


def test_data_behind_an_address_are_looked_at_again_and_again(place):
    space = place.space("cells", data="s3://bucket/images")
    place.watch(space, when=OnChange(poll_seconds=300), clock=FakeClock(hours=0.3))
    assert [round(60 * hours) for hours in place.begins("cells")] == [0, 5, 10, 15]
    assert place.record(space).when == "on change, and every 5m"


def test_a_list_of_images_is_followed_and_its_images_looked_at_again_and_again(place):
    space = place.space("cells", data="list.csv")
    (place.folder / "list.csv").write_text("image,label\na.png,a\nb.png,b\n")
    place.watch(space, when=OnChange(poll_seconds=300), clock=FakeClock(hours=0.3))
    assert [round(60 * hours) for hours in place.begins("cells")] == [0, 5, 10, 15]
    assert place.record(space).when == "on change, and every 5m"


def test_the_zone_is_that_of_the_machine_or_of_tz(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert datetime(2026, 7, 1, tzinfo=local_zone()).utcoffset() == timedelta(hours=2)
    places = [*TZPATH, Path(sysconfig.get_path("purelib"), "tzdata/zoneinfo")]
    berlin = next(path for path in (Path(place, "Europe/Berlin") for place in places) if path.exists())
    for name in (":Europe/Berlin", str(berlin), f":{berlin}"):
        monkeypatch.setenv("TZ", name)
        assert datetime(2026, 7, 1, tzinfo=local_zone()).utcoffset() == timedelta(hours=2)
    for name in ("", ":"):
        monkeypatch.setenv("TZ", name)
        assert local_zone() == UTC
    for name in ("Nowhere/Land", "/nowhere", str(berlin.parent), "CET-1CEST,M3.5.0,M10.5.0/3"):
        monkeypatch.setenv("TZ", name)
        with pytest.raises(UserError, match=f"^TZ: no time zone '{name}'; --cron needs one such as Europe/Berlin$"):
            local_zone()
    monkeypatch.delenv("TZ")
    assert datetime(2026, 7, 1, tzinfo=local_zone()).utcoffset() == datetime(2026, 7, 1).astimezone().utcoffset()
