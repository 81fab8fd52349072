"""Moments of a search as seconds of its work."""

from datetime import UTC, datetime

import pytest

from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial
from search.report.worktime import GAP, Pause, Worktime, work_of


def epoch(at, *, number=1, seconds=10.0, **metrics):
    moment = datetime.fromtimestamp(at, tz=UTC)
    return EpochRecord(number=number, metrics={"usage/seconds": seconds, **metrics}, recorded=moment)


def trial(*epochs):
    return Trial(number=0, params={}, state="RUNNING", epochs=epochs, target=9, origin="random")


TWICE = (Stretch(began=1000.0, seconds=100.0), Stretch(began=5000.0, seconds=60.0))


def test_time_between_two_processes_does_not_count_and_is_a_pause():
    worktime = Worktime.of([], stretches=TWICE)
    assert [worktime.at(moment) for moment in (900, 1040, 1100, 3000, 5000, 5030, 9000)] == [
        0,
        40,
        100,
        100,
        100,
        130,
        160,
    ]
    assert (worktime.seconds, worktime.pauses) == (160, [Pause(100.0, 3900.0)])


def test_a_pause_is_a_gap_before_which_what_ends_then_stands_and_after_which_what_begins():
    worktime = Worktime.of([], stretches=TWICE)
    gap = GAP * 160
    assert worktime.place(99.0) == 99.0
    assert worktime.place(100.0, is_end=True) == 100.0
    assert worktime.place(100.0) == 100.0 + gap
    assert worktime.place(160.0, is_end=True) == 160.0 + gap


def test_a_process_that_was_killed_was_at_work_until_its_last_epoch():
    worktime = Worktime.of([trial(epoch(1130.0))], stretches=TWICE[:1])
    assert (worktime.at(1130.0), worktime.seconds) == (130.0, 130.0)


def test_a_ledger_that_notes_no_stretches_has_the_time_of_its_epochs():
    worktime = Worktime.of([trial(epoch(1010.0), epoch(1050.0, number=2))], stretches=())
    assert (worktime.at(1000.0), worktime.seconds, worktime.pauses) == (0.0, 50.0, [])
    assert Worktime.of([], stretches=()).ticks() == {0.0: "0"}


def test_the_work_of_an_epoch_has_the_start_of_its_leg():
    assert work_of(epoch(1010.0)) == (1000.0, 1010.0)
    assert work_of(epoch(1010.0, **{"usage/start_seconds": 2.5})) == (997.5, 1010.0)


@pytest.mark.parametrize(("seconds", "marks"), [(6.0, ["0", "1 s"]), (160.0, ["0", "30 s"]), (4000.0, ["0", "10 min"])])
def test_an_axis_has_round_times(seconds, marks):
    ticks = Worktime((Stretch(began=0.0, seconds=seconds),)).ticks()
    assert list(ticks.values())[:2] == marks
    assert len(ticks) <= 8
