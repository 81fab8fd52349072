"""The value of every trial by epoch."""

from datetime import UTC, datetime

import pytest

from search.ledger.trials import EpochRecord, Trial
from search.report.learning_curves import COLOURED, learning_curves_figure

METRIC = "val/accuracy"


def trial(number, *values):
    moment = datetime.fromtimestamp(0, tz=UTC)
    epochs = tuple(
        EpochRecord(number=epoch, metrics={METRIC: value}, recorded=moment)
        for epoch, value in enumerate(values, start=1)
    )
    return Trial(number=number, params={}, state="PRUNED", epochs=epochs, target=9, origin="random")


def test_the_best_are_lines_of_their_own_and_all_others_one_with_breaks():
    trials = [trial(number, 0.1 * number, 0.1 * number + 0.05) for number in range(COLOURED + 2)]
    others, *best = learning_curves_figure(trials, metric=METRIC).data
    assert [trace.name for trace in best] == ["trial 2", "trial 3", "trial 4", "trial 5", "trial 6"]
    assert (list(best[-1].x), list(best[-1].y)) == ([1, 2], pytest.approx([0.6, 0.65]))
    assert (others.name, list(others.x)) == ("2 others", [1, 2, None, 1, 2, None])
    assert list(others.y) == [0.1, pytest.approx(0.15), None, 0.0, 0.05, None]


def test_without_values_there_is_no_plot():
    with pytest.raises(ValueError, match="no trial has a value yet"):
        learning_curves_figure([trial(0)], metric=METRIC)
