"""What is shown of a search at work, on a terminal and off it."""

import io
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from optuna.distributions import CategoricalDistribution
from rich.console import Console

from search.engine.listeners import Outcome
from search.engine.schedulers import scheduler_rule
from search.ledger import ledger as ledgers
from search.ledger.notes import DataFacts, Stretch
from search.ledger.trials import EpochRecord, Trial, best_trial
from search.report.progress import Progress
from search.space.spec import SearchSpec

SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 1},
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "vary": {"model.weights": {"choice": ["weights [edited].pt", "random"]}},
    }
)


def test_names_with_brackets_are_printed_whole(tmp_path):
    ledger = ledgers.create(tmp_path, name="cells", storage=None, space=SPEC.space, metric=SPEC.search.metric, notes={})
    line = "1 image that cannot be decoded (left out), such as 'a/photo [edited].png'"
    ledger.note(data=DataFacts(report={"findings": [{"line": line}]}))
    text = io.StringIO()
    progress = Progress(Console(file=text, soft_wrap=True, width=240))
    progress.begin(ledger, spec=SPEC, rule=scheduler_rule(SPEC))
    assert f"note: {line}\n" in text.getvalue()
    distributions = {"model.weights": CategoricalDistribution(("weights [edited].pt", "random"))}
    ledger.start(
        encoded={"model.weights": "weights [edited].pt"}, distributions=distributions, target=1, origin="random"
    )
    progress.changed(ledger.trial(0))
    assert "model.weights=weights [edited].pt\n" in text.getvalue()


METRIC = SPEC.search.metric


def on_terminal(folder, *, width=100, height=24, **search):
    """The progress of a search that has just begun, with the terminal it is shown on."""
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1000, **search},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )
    ledger = ledgers.create(folder, name="cells", storage=None, space=spec.space, metric=METRIC, notes={})
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    progress = Progress(console)
    progress.begin(ledger, spec=spec, rule=scheduler_rule(spec))
    return progress, console


def trial(number, values, *, state="PRUNED", target=1):
    epochs = tuple(
        EpochRecord(
            number=epoch,
            metrics={METRIC: value, "val/loss": 1 - value / 2, "usage/seconds": 1.0},
            recorded=datetime(2024, 1, 1, tzinfo=UTC),
        )
        for epoch, value in enumerate(values, start=1)
    )
    params = {"optimizer.lr": 0.01, "model.name": "a name [of 80 letters]" * 4}
    return Trial(number=number, params=params, state=state, epochs=epochs, target=target, origin="random")


def lines_of(progress, console):
    """A frame as it is drawn on a screen of this size."""
    text = io.StringIO()
    Console(file=text, width=console.width, height=console.height).print(progress.frame())
    return text.getvalue().splitlines()


@pytest.mark.parametrize("height", [8, 24, 80])
@pytest.mark.parametrize("width", [50, 120])
def test_the_table_of_a_thousand_trials_stays_within_the_screen(tmp_path, width, height):
    progress, console = on_terminal(tmp_path, width=width, height=height)
    for number in range(1000):
        progress.changed(trial(number, [number / 2000]))
    lines = lines_of(progress, console)
    progress.end(None, outcome=Outcome("interrupted", "", tmp_path))
    assert 3 < len(lines) < height
    assert max(map(len, lines)) <= width


def test_those_at_work_are_told_from_those_that_wait_and_the_best_is_marked(tmp_path):
    progress, console = on_terminal(tmp_path)
    records = [
        trial(0, [0.9]),
        *(trial(number, [0.5], state="RUNNING") for number in range(1, 12)),
        trial(12, [0.5], state="RUNNING", target=3),
        trial(13, [], state="RUNNING"),
        trial(14, [], state="FAILED"),
        trial(15, [0.1] * 9, state="COMPLETE", target=9),
        *(trial(number, [0.2]) for number in range(16, 40)),
    ]
    for record in records:
        progress.changed(record)
    lines = lines_of(progress, console)
    progress.end(None, outcome=Outcome("interrupted", "", tmp_path))
    assert "2 running, 11 waiting, 1 complete, 25 pruned, 1 failed; 46 epochs; best 0.9000 (trial 0)" in " ".join(lines)
    header = next(index for index, line in enumerate(lines) if line.startswith("trial"))
    rows = [line.split() for line in lines[header + 1 :]]
    assert rows[0][:4] == ["0", "best", "pruned", "1/9"]
    assert [row[:2] for row in rows[1:3]] == [["12", "running"], ["13", "running"]]
    assert [row[:2] for row in rows[3:5]] == [["39", "pruned"], ["38", "pruned"]]


@pytest.mark.parametrize("choose_by", [[], ["val/loss", METRIC]])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_on_the_screen_is_the_best_of_all(tmp_path, choose_by, seed):
    progress, console = on_terminal(tmp_path, choose_by=choose_by)
    chance, records = random.Random(seed), []
    for _ in range(120):
        waiting = [record for record in records if record.state == "RUNNING"]
        if waiting and chance.random() < 0.8:
            old = chance.choice(waiting)
            values = [*(epoch.metrics[METRIC] for epoch in old.epochs), chance.randrange(20) / 20]
            state = chance.choice(["RUNNING", "RUNNING", "PRUNED", "COMPLETE", "FAILED"])
            records[old.number] = trial(old.number, values, state=state)
            progress.changed(records[old.number])
        else:
            records.append(trial(len(records), [], state="RUNNING"))
            progress.changed(records[-1])
        best = best_trial(records, metric=METRIC, choose_by=choose_by)
        marked = [line.split()[0] for line in lines_of(progress, console) if line.split()[1:2] == ["best"]]
        assert marked == ([] if best is None else [str(best.number)])
    progress.end(None, outcome=Outcome("interrupted", "", tmp_path))


def test_a_change_and_a_frame_cost_no_more_calls_among_ten_times_the_trials(tmp_path, calls_of):
    progress, console = on_terminal(tmp_path)
    counts = []
    for size in (100, 1000):
        for number in range(size // 10 if counts else 0, size):
            progress.changed(trial(number, [0.5 - number / 5000]))
        last = trial(size - 1, [0.5])
        changes = calls_of(lambda: progress.changed(replace(last, target=9)))  # noqa: B023
        counts.append((changes, calls_of(lambda: lines_of(progress, console))))
    progress.end(None, outcome=Outcome("interrupted", "", tmp_path))
    assert counts[1][0] <= counts[0][0] + 5
    assert counts[1][1] <= counts[0][1] * 1.2


def test_a_search_with_a_time_says_what_is_left_of_it_whatever_earlier_processes_spent(tmp_path):
    ledger = ledgers.create(tmp_path, name="cells", storage=None, space=SPEC.space, metric=METRIC, notes={})
    ledger.note(stretches=(Stretch(began=0, seconds=600), Stretch(began=2000, seconds=600)))
    progress, console = on_terminal(tmp_path, trials=None, budget={"minutes": 40})
    assert "20 min of 40 min left" in lines_of(progress, console)[0]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_lost_worker_is_told_with_where_its_trial_goes_on(tmp_path, is_terminal):
    progress, console = on_terminal(tmp_path)
    if not is_terminal:
        progress.end(None, outcome=Outcome("interrupted", "", tmp_path))
        progress._live = None
    lost = {"reason": "node gone", "of_machine": True, "details": "", "epoch": 2}
    progress.changed(trial(0, [0.5], state="RUNNING"))
    progress.changed(replace(trial(0, [0.5], state="RUNNING"), losses=1, failure=lost))
    told = "trial 0 lost its worker in epoch 2 (node gone), 1 times so far; it goes on from epoch 1"
    assert told in console.file.getvalue()
    progress.end(None, outcome=Outcome("interrupted", "", tmp_path))
