from datetime import UTC, datetime

import pytest

from search.engine.listeners import Outcome
from search.ledger import ledger as ledgers
from search.ledger.notes import DataFacts, Stretch
from search.run.timekeeper import Timekeeper, clock_of, steady_now
from search.space.dimension import parse_dimension
from search.space.space import make_space
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"
SPACE = make_space({"optimizer.lr": parse_dimension({"log": [1e-5, 1e-1]}, where="lr")})


class Time:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def spec_of(**search):
    document = {
        "search": {"name": "one", **search},
        "scheduler": {"max_epochs": 9},
        "base": {"data": {"path": "images"}},
    }
    return SearchSpec.model_validate(document)


@pytest.fixture
def open_ledger(tmp_path):
    return lambda: ledgers.create(
        tmp_path, name="s", storage=None, space=SPACE, metric=METRIC, notes={"metric": METRIC}
    )


def num_lines(folder):
    return (folder / ledgers.JOURNAL).read_bytes().count(b"\n")


def test_the_time_of_a_killed_process_counts_and_the_time_until_its_resume_does_not(open_ledger):
    time = Time(1000.0)
    first = Timekeeper(open_ledger(), began=997.0, now=time)
    time.now = 1040.0
    first.pulse()
    time.now = 1045.0  # killed here: five seconds after its last note
    time.now = 9000.0
    second = Timekeeper(open_ledger(), began=9000.0, now=time)
    assert second.spent_seconds() == 43
    time.now = 9002.0
    assert second.spent_seconds() == 45


def test_a_killed_process_was_at_work_until_the_last_epoch_it_recorded(open_ledger):
    now = datetime.now(UTC).timestamp()
    time = Time(now)
    ledger = open_ledger()
    Timekeeper(ledger, began=now - 100, now=time)
    number = ledger.start(encoded={}, distributions={}, target=1, origin="random")
    ledger.record(number, epoch=1, metrics={METRIC: 0.5})
    recorded = ledger.trial(number).epochs[-1].recorded.timestamp()
    time.now = now + 5000
    again = Timekeeper(open_ledger(), began=time.now, now=time)
    assert again.spent_seconds() == pytest.approx(recorded - (now - 100), abs=1e-3)


def test_a_note_is_made_every_ten_seconds_and_one_at_the_end(open_ledger, tmp_path):
    time, ledger = Time(0.0), open_ledger()
    keeper, before = Timekeeper(ledger, began=0.0, now=time), num_lines(tmp_path)
    for tenth in range(301):
        time.now = tenth / 10
        keeper.pulse()
    assert num_lines(tmp_path) == before + 3
    time.now = 34.0
    keeper.end(ledger, outcome=Outcome("finished", "", tmp_path))
    assert open_ledger().notes.stretches == (Stretch(began=0.0, seconds=34.0),)


def test_time_never_goes_back():
    assert steady_now() <= steady_now()


def test_only_a_budget_of_time_makes_a_clock_and_a_soup_counts_its_candidates(open_ledger):
    keeper = Timekeeper(open_ledger(), began=0.0, now=Time(60.0))
    data = DataFacts(counts={"train": {"a": 60, "b": 20}, "val": {"a": 20}, "test": {"a": 20, "b": 5}})
    assert clock_of(spec_of(trials=3), data=data, timekeeper=keeper) is None
    clock = clock_of(spec_of(budget={"hours": 0.5}), data=data, timekeeper=keeper)
    assert (clock.asked_seconds, clock.spent_seconds(), clock.num_evaluations) == (1800, 60, 8)
    assert clock.pass_share == 0.25
    chosen = spec_of(budget={"minutes": 5}, choose_by=["val/accuracy"])
    assert clock_of(chosen, data=DataFacts(), timekeeper=keeper).num_evaluations == 3


def test_time_is_kept_for_the_passes_of_other_views(open_ledger):
    keeper = Timekeeper(open_ledger(), began=0.0, now=Time(0.0))
    data = DataFacts(counts={"train": {"a": 80}, "val": {"a": 20}, "test": {"a": 25}})
    document = spec_of(budget={"hours": 0.5}).model_dump(exclude_unset=True)
    turned = {"finish": ["views"], "base": {"augment.flip": "both", "augment.rotate": "none"}}
    clock = clock_of(SearchSpec.model_validate(document | turned), data=data, timekeeper=keeper)
    assert clock.num_evaluations == 8
    assert clock.pass_share == (4 * 25 + 3 * 20) / 100
