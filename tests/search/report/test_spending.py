from datetime import UTC, datetime

from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial
from search.report.spending import PARTS, clock_line, spending, spending_line
from search.space.sections import BudgetSection
from trainable.prefix.outputs import Spent
from trainable.training.usage import usage


def trial(*epochs):
    records = [
        EpochRecord(number=number, metrics=metrics, recorded=datetime.now(UTC))
        for number, metrics in enumerate(epochs, 1)
    ]
    return Trial(number=0, params={}, state="COMPLETE", epochs=tuple(records), target=9, origin="random")


def test_seconds_are_added_up_over_epochs_and_trials():
    first = trial({"usage/training_seconds": 3.0, "usage/prefix_saved_seconds": 60.0}, {"usage/training_seconds": 3.0})
    second = trial({"usage/training_seconds": 2.0, "usage/start_seconds": 2.0, "usage/prefix_saved_seconds": 120.0})
    spent = spending([first, second])
    assert spent == {"training": 8.0, "start": 2.0, "prefix_saved": 180.0}
    assert spending_line(spent) == ("training 80 %, start 20 %; what was kept of frozen layers saved 3.0 trial-minutes")


def test_a_search_from_before_they_were_told_says_nothing():
    assert spending_line(spending([trial({"usage/seconds": 3.0})])) == ""
    assert spending_line(spending([])) == ""


def test_all_that_an_epoch_tells_has_its_name():
    told = usage(1.0, spent={}, trained=Spent(), measured=Spent())
    parts = {name.removeprefix("usage/").removesuffix("_seconds") for name in told if name.endswith("_seconds")}
    assert parts - {"prefix_saved"} <= set(PARTS)


def test_the_time_by_the_clock_is_told_as_asked_spent_and_left():
    halves = [Stretch(began=0, seconds=600), Stretch(began=9000, seconds=120)]
    asked = BudgetSection(hours=0.5)
    assert clock_line(asked, stretches=halves[:1]) == "30 min asked, 10 min spent, 20 min left"
    assert clock_line(asked, stretches=halves) == "30 min asked, 12 min spent in 2 stretches, 18 min left"
    assert clock_line(BudgetSection(minutes=1), stretches=halves[1:]) == "60 s asked, 2.0 min spent, 0 s left"
    assert clock_line(BudgetSection(epochs=5), stretches=halves[:1]) == "10 min spent"
    assert clock_line(BudgetSection(), stretches=[]) == ""
