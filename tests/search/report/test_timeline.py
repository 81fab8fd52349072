"""Who was at work when, from the times in a ledger."""

from datetime import UTC, datetime

import pytest

from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial
from search.report.timeline import MOST_TRIALS, Leg, legs_of, slots_figure, slots_of, trials_figure
from search.report.worktime import GAP, Worktime


def trial(number, *epochs, state="COMPLETE"):
    """``epochs`` are (when it ended, seconds, whether a leg began with it)."""
    records = tuple(
        EpochRecord(
            number=place,
            metrics={"usage/seconds": seconds, **({"usage/start_seconds": 1.0} if starts else {})},
            recorded=datetime.fromtimestamp(ended, tz=UTC),
        )
        for place, (ended, seconds, starts) in enumerate(epochs, start=1)
    )
    return Trial(number=number, params={}, state=state, epochs=records, target=9, origin="random")


WORKTIME = Worktime((Stretch(began=1000.0, seconds=100.0), Stretch(began=2000.0, seconds=100.0)))
# two slots; trial 0 waits at its rung while trial 2 has its place, and goes on after the pause
TRIALS = [
    trial(0, (1020, 19, True), (1040, 20, False), (2030, 29, True)),
    trial(1, (1100, 99, True), state="PRUNED"),
    trial(2, (1090, 49, True), state="FAILED"),
]
LEGS = [
    Leg(trial=0, state="COMPLETE", first=1, last=2, began=0, ended=40),
    Leg(trial=1, state="PRUNED", first=1, last=1, began=0, ended=100),
    Leg(trial=2, state="FAILED", first=1, last=1, began=40, ended=90),
    Leg(trial=0, state="COMPLETE", first=3, last=3, began=100, ended=130),
]


def bars(figure, name):
    trace = next(trace for trace in figure.data if trace.name == name)
    return [(row, begin, begin + length) for row, begin, length in zip(trace.y, trace.base, trace.x, strict=True)]


def test_the_epochs_between_two_decisions_are_one_leg():
    assert legs_of(TRIALS, worktime=WORKTIME) == LEGS


def test_a_leg_is_in_the_first_slot_that_is_free():
    assert [[leg.trial for leg in slot] for slot in slots_of(LEGS)] == [[0, 2, 0], [1]]


def test_slots_show_who_was_trained_that_they_waited_and_pauses_as_gaps():
    figure, gap = slots_figure(TRIALS, worktime=WORKTIME), GAP * 200
    assert bars(figure, "trained to the end") == [("slot 1", 0, 40), ("slot 1", 100 + gap, 130 + gap)]
    assert bars(figure, "stopped") == [("slot 2", 0, 100)]
    assert bars(figure, "failed") == [("slot 1", 40, 90)]
    assert bars(figure, "waiting") == [
        (f"slot {number}", *span) for number in (1, 2) for span in ((0, 100), (100 + gap, 200 + gap))
    ]
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (100, 100 + gap)
    assert [note.text for note in figure.layout.annotations] == ["paused 15 min"]


def test_a_trial_waits_between_its_legs_alone():
    figure, gap = trials_figure(TRIALS, worktime=WORKTIME), GAP * 200
    waiting = [("trial 0", 0, 100), ("trial 0", 100 + gap, 130 + gap), ("trial 1", 0, 100), ("trial 2", 40, 90)]
    assert bars(figure, "waiting") == waiting
    assert list(figure.layout.yaxis.categoryarray) == ["trial 0", "trial 1", "trial 2"]


def test_of_many_trials_those_with_most_work_are_shown():
    many = [trial(number, (1000 + number, number, True)) for number in range(1, MOST_TRIALS + 6)]
    rows = trials_figure(many, worktime=WORKTIME).layout.yaxis.categoryarray
    assert (len(rows), rows[0]) == (MOST_TRIALS, "trial 6")


def test_before_anything_was_trained_there_is_no_timeline():
    with pytest.raises(ValueError, match="nothing was trained yet"):
        slots_figure([trial(0)], worktime=WORKTIME)
