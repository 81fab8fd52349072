"""The first screen of a page, against the report that it is made of."""

import pytest

from search.report.headline import headline_html, tiles
from search.report.report import report_data

VERDICT = {
    "sentence": "better than the linear probe by 3.6 to 13.3 points",
    "others": ["better than trial 1 by luck"],
    "against": "linear_probe",
    "gain": 0.085,
    "low": 0.036,
    "high": 0.133,
}


@pytest.fixture
def data(make_search):
    folder, ledger = make_search([0.4, 0.856], [0.3])
    ledger.note(
        test={"trial": 0, "metrics": {"balanced_accuracy": 0.8006}, "intervals": {"balanced_accuracy": [0.756, 0.843]}},
        stretches=[{"began": 0.0, "seconds": 276.0}],
    )
    return report_data(folder)


def figures(data):
    return {tile.name: (tile.value, tile.note) for tile in tiles(data)}


def test_the_tiles_are_the_ledgers_numbers(data):
    found = figures(data)
    assert found["balanced accuracy, test split"] == ("80.1 %", "75.6 to 84.3 (95 %), trial 0")
    assert found["balanced accuracy, validation"] == ("85.6 %", "trial 0, the best of 2")
    assert found["trials"] == ("2", "2 running")
    assert found["time by the clock"][1] == "3 epochs, 3 s of work"


def test_the_gain_is_the_verdicts(data):
    assert figures(data | {"verdict": VERDICT})["beside linear probe"] == ("+8.5 points", "+3.6 to +13.3 (95 %)")


def test_the_verdict_comes_first_and_then_the_plots(data):
    text = headline_html(data | {"verdict": VERDICT}, plots={"A plot": "<i></i>"})
    assert text.startswith('<p class="verdict">better than the linear probe by 3.6 to 13.3 points</p>')
    assert text.endswith("<h3>A plot</h3><i></i></div></div>")


def test_before_there_is_a_verdict_that_is_said(make_search):
    folder, _ = make_search([0.4])
    assert "no verdict yet: the search is interrupted" in headline_html(report_data(folder), plots={})
