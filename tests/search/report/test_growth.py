"""How good the best was after how much work."""

from datetime import UTC, datetime

import pytest

from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial
from search.report.growth import growth, growth_figure
from search.report.worktime import Worktime

METRIC = "val/accuracy"
WORKTIME = Worktime((Stretch(began=0.0, seconds=100.0),))


def trial(number, *values, state="COMPLETE", metric=METRIC):
    """``values`` are (when, value), an epoch each."""
    epochs = tuple(
        EpochRecord(number=place, metrics={metric: value}, recorded=datetime.fromtimestamp(moment, tz=UTC))
        for place, (moment, value) in enumerate(values, start=1)
    )
    return Trial(number=number, params={}, state=state, epochs=epochs, target=9, origin="random")


TRIALS = [
    trial(0, (10, 0.5), (40, 0.8), (60, 0.7)),
    trial(1, (20, 0.6)),
    trial(2, (50, 0.7)),
    trial(3, (80, 0.9), state="FAILED"),
]


def test_each_trial_stands_where_it_was_best_and_a_record_beats_all_before_it():
    rows = growth(TRIALS, metric=METRIC, worktime=WORKTIME)
    found = [(row["trial"], row["worked"], row["value"], row["is_record"]) for row in rows]
    assert found == [(1, 20.0, 0.6, True), (0, 40.0, 0.8, True), (2, 50.0, 0.7, False)]


def test_of_a_loss_the_lower_is_the_record():
    losses = [trial(0, (10, 0.5), metric="val/loss"), trial(1, (20, 0.4), metric="val/loss")]
    assert [row["is_record"] for row in growth(losses, metric="val/loss", worktime=WORKTIME)] == [True, True]
    assert [row["is_record"] for row in growth(losses[::-1], metric="val/loss", worktime=WORKTIME)] == [True, True]


def test_the_line_of_the_best_goes_on_to_the_end_of_the_work():
    points, best = growth_figure(TRIALS, metric=METRIC, worktime=WORKTIME).data
    assert (list(points.x), list(points.y)) == ([20, 40, 50], [0.6, 0.8, 0.7])
    assert (list(best.x), list(best.y)) == ([20, 40, 100], [0.6, 0.8, 0.8])


def test_a_pause_is_a_gap_on_the_axis():
    paused = Worktime((Stretch(began=0.0, seconds=30.0), Stretch(began=35.0, seconds=30.0)))
    figure = growth_figure(TRIALS, metric=METRIC, worktime=paused)
    assert list(figure.data[0].x) == pytest.approx([20, 35 + 1.8, 45 + 1.8])  # a gap of 3 % of 60 seconds
    assert [note.text for note in figure.layout.annotations] == ["paused 5 s"]


def test_without_values_there_is_no_plot():
    with pytest.raises(ValueError, match="no trial has a value yet"):
        growth_figure([trial(0)], metric=METRIC, worktime=WORKTIME)
