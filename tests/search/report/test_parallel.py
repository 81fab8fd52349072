"""Parallel coordinates: what a trial did not have stands in place."""

from datetime import UTC, datetime

import pytest

from search.ledger.trials import EpochRecord, Trial
from search.report.parallel import BENEATH, NONE, axes, parallel_figure, place, ticks
from search.space.dimension import Choice, Number
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"
SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 9, "metric": METRIC},
        "scheduler": {"max_epochs": 9},
        "base": {"data.path": "images"},
        "vary": {
            "model.head": {"choice": ["linear", "mlp"]},
            "model.head_hidden": {"int": [128, 1024], "when": {"model.head": "mlp"}},
            "optimizer.lr": {"log": [1e-4, 1e-1]},
        },
    }
)
LOG = Number(low=1e-4, high=1e-1, log=True)


def trial(number, value, **params):
    epochs = (EpochRecord(number=1, metrics={METRIC: value}, recorded=datetime.fromtimestamp(0, tz=UTC)),)
    named = {path.replace("__", "."): value for path, value in params.items()}
    return Trial(number=number, params=named, state="COMPLETE", epochs=epochs, target=1, origin="random")


TRIALS = [
    trial(0, 0.5, model__head="linear", optimizer__lr=1e-4),
    trial(1, 0.9, model__head="mlp", model__head_hidden=1024, optimizer__lr=1e-2),
    trial(2, 0.7, model__head="linear", optimizer__lr=1e-1),
]


def test_a_logarithmic_value_stands_by_its_logarithm():
    assert [place(value, dimension=LOG) for value in (1e-4, 1e-2, 1e-1)] == pytest.approx([0.0, 2 / 3, 1.0])
    assert list(ticks(LOG).values()) == ["0.0001", "0.001", "0.01", "0.1"]


def test_a_linear_value_stands_by_itself_and_choices_at_even_distances():
    assert place(0.25, dimension=Number(low=0.0, high=1.0)) == 0.25
    depth = Choice((0, 0.5, "all"))
    assert ticks(depth) == {0.0: "0", 0.5: "0.5", 1.0: "all"}
    assert place(7.0, dimension=Number(low=0.0, high=1.0)) == 1.0


def test_the_most_important_comes_first_and_what_no_trial_had_is_left_out():
    assert axes(TRIALS, spec=SPEC, shares={"optimizer.lr": 0.8, "model.head": 0.2})[0] == "optimizer.lr"
    assert "model.head_hidden" not in axes(TRIALS[::2], spec=SPEC, shares={})


def test_a_value_that_was_not_active_is_drawn_beneath_its_own_axis():
    shares = {"optimizer.lr": 0.7, "model.head": 0.2, "model.head_hidden": 0.1}
    figure = parallel_figure(TRIALS, spec=SPEC, shares=shares)
    others, _, best = [*figure.data[:1], None, figure.data[-1]]
    # by learning rate, head, hidden units, value; the worst first
    assert list(others.y) == pytest.approx([0.0, 0.0, BENEATH, 0.0, None, 1.0, 0.0, BENEATH, 0.5, None], nan_ok=True)
    assert list(best.y)[:-1] == pytest.approx([2 / 3, 1.0, 1.0, 1.0])
    assert others.text[2] == f"trial 0, model.head_hidden: {NONE}"
    beneath = [(note.x, note.text) for note in figure.layout.annotations if note.y == BENEATH]
    assert beneath == [(2, NONE)]


def test_one_trial_is_compared_with_nothing():
    with pytest.raises(ValueError, match="fewer than two trials"):
        parallel_figure(TRIALS[:1], spec=SPEC, shares={})
