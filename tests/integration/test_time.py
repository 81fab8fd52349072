"""A search with so much time by the clock: it ends in it, killed in the middle or not, and says how the time was spent."""

import time

import pytest

pytestmark = pytest.mark.slow

MINUTES = 1.5
TOLERANCE = 0.1  # of the time: 9 s, since a process needs some to be there at all on two busy cores
BOUNDS = {"trials": None, "seed": 3, "name": "cells"}


@pytest.fixture(scope="module")
def killed_and_resumed(make_place):
    """A search killed in the middle of its time, resumed after a pause; its place and the seconds of the processes."""
    place = make_place()
    place.write_space(search={**BOUNDS, "budget": {"hours": 5}})
    began = time.monotonic()
    middle = began + MINUTES * 60 / 2
    place.kill_when(lambda: time.monotonic() > middle, "run", "space.yaml", "--minutes", str(MINUTES))
    first = time.monotonic() - began
    time.sleep(15)  # which counts for nothing
    began = time.monotonic()
    result = place.succeed("resume", "cells")
    return place, first, time.monotonic() - began, result.stdout


@pytest.mark.long
def test_a_search_killed_in_the_middle_ends_in_the_time_asked_for(killed_and_resumed):
    _, first, second, told = killed_and_resumed
    assert first + second == pytest.approx(MINUTES * 60, rel=TOLERANCE)
    assert "finished: out of time (search.budget.minutes: 1.5)" in told


@pytest.mark.long
def test_the_ledger_says_how_the_time_was_spent(killed_and_resumed):
    place, first, second, _ = killed_and_resumed
    before, after = place.ledger().notes.stretches
    assert before.seconds == pytest.approx(first, abs=12)  # a note every ten seconds, and a start
    assert after.seconds == pytest.approx(second, abs=12)  # its end comes before the page
    assert after.began - before.began - before.seconds > 14
    assert "in 2 stretches" in place.read("status", "cells")["clock"]["line"]


@pytest.mark.long
def test_such_a_search_is_whole(killed_and_resumed):
    place, *_ = killed_and_resumed
    status = place.read("status", "cells")
    assert status["state"] == "finished"
    assert status["test"]
    best = place.ledger().trials()[status["best_trial"]]
    assert best.epochs
    assert any(trial.state == "COMPLETE" for trial in place.ledger().trials())


@pytest.mark.long
def test_more_time_goes_on_with_what_was_left_open(killed_and_resumed):
    place, *_ = killed_and_resumed
    before = place.ledger().trials()
    left_open = [trial for trial in before if trial.state == "RUNNING"]
    assert left_open
    assert all(trial.reason == f"out of time at epoch {trial.last_epoch}" for trial in left_open)
    place.told("resume", "cells", "--minutes", str(MINUTES + 0.75))
    after = place.ledger()
    assert sum(trial.last_epoch for trial in after.trials()) > sum(trial.last_epoch for trial in before)
    assert len(after.notes.stretches) == 3


def test_a_time_in_which_nothing_fits_is_one_line(make_place):
    place = make_place(bare=True)
    place.write_space(search={**BOUNDS, "budget": {"minutes": 0.01}})
    result = place.run("run", "space.yaml")
    assert result.returncode == 1
    error = next(line for line in result.stderr.splitlines() if line.startswith("error:"))
    assert error == "error: no trial finished an epoch: out of time (search.budget.minutes: 0.01); give it more"
