"""Which searched values mattered, where enough trials tell."""

import pytest

from search.ledger.stored import open_ledger
from search.report.importances import FEWEST, importances, importances_figure


def found(make_search, *values):
    folder, _ = make_search(*([0.1, 0.1, value] for value in values))
    spec, ledger = open_ledger(folder)
    return importances(ledger.trials(), spec=spec)


def test_importances_of_few_trials_are_one_sentence(make_search):
    few = found(make_search, *(0.05 * number for number in range(FEWEST - 1)))
    assert (few.shares, few.why_not) == ({}, "19 trials reached epoch 3, importances of fewer than 20 say nothing")
    with pytest.raises(ValueError, match="19 trials reached epoch 3"):
        importances_figure(few, rung=3)


def test_the_value_that_the_best_have_in_common_has_the_whole_share(make_search):
    some = found(make_search, *(0.9 if number % 4 == 1 else 0.1 * (number % 4) for number in range(20)))
    assert some.shares == {"optimizer.lr": 1.0}
    (bars,) = importances_figure(some, rung=3).data
    assert (list(bars.y), list(bars.x)) == (["optimizer.lr"], [1.0])
