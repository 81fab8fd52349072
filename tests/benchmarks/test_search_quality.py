"""Searches in simulated time, on curves that are worked out by hand."""

import dataclasses
import gzip
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
METRIC = "val/balanced_accuracy"


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    try:
        for name in ("search_tables", "search_players", "peer_players", "search_quality"):
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
    finally:
        sys.path.remove(str(FOLDER))
    return sys.modules


@pytest.fixture
def quality(modules):
    return modules["search_quality"]


@pytest.fixture
def players(modules):
    return modules["search_players"]


@pytest.fixture
def tables(modules):
    return modules["search_tables"]


VARY = {"optimizer.lr": {"log": [1e-4, 1e-1]}}


def line(lr, *values, seconds=1.0):
    return {"params": {"optimizer.lr": lr}, METRIC: list(values), "cpu_seconds": [seconds] * len(values)}


def small(tables):
    lines = [line(1e-4, 0.2, 0.4, seconds=3.0), line(1e-2, 0.5, 0.6, seconds=2.0), line(1e-1, 0.3, 0.8, seconds=10.0)]
    return tables.fine_tuning_task("small", vary=VARY, lines=lines)


def large(tables, *, rows=40):
    """Rates around 1e-2 are best, large ones cost more."""
    chance, lines = random.Random(0), []
    for _ in range(rows):
        log = chance.uniform(-4, -1)
        top = 0.9 - 0.2 * abs(log + 2)
        lines.append(line(10**log, *(top * (1 - 0.6**epoch) for epoch in range(1, 10)), seconds=5 + log))
    return tables.fine_tuning_task("large", vary=VARY, lines=lines)


class Scripted:
    """Begins what it is told to, in that order, and trains everything to the end."""

    def __init__(self, players, *rates):
        self.players, self.rates, self.begun, self.heard = players, rates, 0, []

    def work(self, *, may_begin):
        if self.begun == len(self.rates) or not may_begin:
            return None
        self.begun += 1
        return self.players.Work(self.begun - 1, {"optimizer.lr": self.rates[self.begun - 1]})

    def hear(self, number, *, epoch, value, seconds):
        self.heard.append((number, epoch, value, seconds))
        return True


def test_two_slots_work_at_once_and_the_first_to_end_takes_the_next_trial(quality, players, tables):
    """Of 2 × 3 s, 2 × 2 s and 2 × 10 s: the second slot is free after 4 s and ends the third trial at 4 + 20 s."""
    player = Scripted(players, 1e-4, 1e-2, 1e-1)
    events = quality.simulate(player, task=small(tables), seed=0, slots=2, full_trainings=9)
    assert [(event.time, event.number, event.epoch, event.value) for event in events] == [
        (2.0, 1, 1, 0.5),
        (3.0, 0, 1, 0.2),
        (4.0, 1, 2, 0.6),
        (6.0, 0, 2, 0.4),
        (14.0, 2, 1, 0.3),
        (24.0, 2, 2, 0.8),
    ]
    assert player.heard[0] == (1, 1, 0.5, 2.0)


def test_regret_is_the_share_of_the_way_from_the_best_value_to_the_worst(quality, players, tables):
    """The best of the three curves have 0.8, 0.6 and 0.4 at most, so 0.5 lies 0.3 of 0.4 below the best."""
    task = small(tables)
    events = quality.simulate(Scripted(players, 1e-4, 1e-2, 1e-1), task=task, seed=0, slots=2, full_trainings=9)
    assert quality.regret_after(events, task=task, epochs=1) == pytest.approx(0.75)
    assert quality.regret_after(events, task=task, epochs=4) == pytest.approx(0.5)
    assert quality.regret_after(events, task=task, epochs=6) == 0.0
    assert quality.regret_after(events, task=task, seconds=6.9) == pytest.approx(
        0.75
    )  # 2 + 3 s are spent, 2 + 3 + 2 not
    assert quality.regret_after(events, task=task, seconds=7.0) == pytest.approx(0.5)
    assert task.seconds == 10.0


def test_a_search_ends_when_both_budgets_are_spent(quality, players, tables):
    """One training is two epochs, and 10 s in the mean, which 2 + 3 + 2 + 3 s are."""
    player = Scripted(players, 1e-4, 1e-2, 1e-1)
    assert len(quality.simulate(player, task=small(tables), seed=0, slots=2, full_trainings=1)) == 4


def test_a_row_is_served_once_and_the_nearest_free_one_after_it(tables):
    rows = small(tables).serve(0)
    tops = [max(rows.curve({"optimizer.lr": 2e-2}).values) for _ in range(3)]
    assert tops == [0.6, 0.8, 0.4]
    assert rows.is_exhausted


def test_a_curve_that_diverged_has_the_worst_value_to_the_end(tables):
    task = tables.fine_tuning_task("x", vary=VARY, lines=[line(1e-4, 0.2, 0.4, 0.5), line(1e-1, 0.3, seconds=7.0)])
    curve = task.serve(0).curve({"optimizer.lr": 1e-1})
    assert (list(curve.values), list(curve.seconds)) == ([0.3, 0.2, 0.2], [7.0, 7.0, 7.0])


@pytest.mark.parametrize(
    "method", ["ours:asha", "ours:gp", "ours:freeze_thaw", "ours:asha,mode=stop,min_epochs=1", "random",
               "optuna:tpe+hyperband", "ray:grace1-reduction4"],
)  # fmt: skip
def test_a_seed_gives_the_same_search_again(quality, players, tables, method):
    """No trial is served more epochs than there are, each once and in order."""
    task = large(tables)
    first, again = (
        quality.simulate(players.make_player(method, task, seed=3), task=task, seed=3, slots=2, full_trainings=5)
        for _ in range(2)
    )
    assert first == again
    assert len(first) >= 5 * task.epochs
    for number in {event.number for event in first}:
        epochs = [event.epoch for event in first if event.number == number]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) <= task.epochs


PEERS = ("dehb", "syne-tune:asha", "syne-tune:asha-cqr", "syne-tune:asha-bore", "syne-tune:bohb")


@pytest.mark.parametrize("method", PEERS)
def test_a_peer_of_an_environment_of_its_own_plays_too_and_is_skipped_elsewhere(quality, modules, tables, method):
    peers, task = modules["peer_players"], large(tables)
    assert set(peers.MAKERS) == set(PEERS)
    if not peers.is_there(method):
        pytest.skip(f"{method} is not installed: benchmarks/peer_players.py says how")
    player = peers.make_peer(method, task, seed=3)
    events = quality.simulate(player, task=task, seed=3, slots=2, full_trainings=5)
    assert len(events) >= 5 * task.epochs
    lasts = {event.number: event.epoch for event in events}
    assert 1 in lasts.values()
    assert task.epochs in lasts.values()


@pytest.mark.parametrize(("prior", "rate"), [("good", 1e-2), ("wrong", 1e-4)])
@pytest.mark.parametrize("scheduler", ["asha", "freeze_thaw"])
def test_a_prior_is_the_best_or_the_worst_of_the_other_tasks(players, tables, prior, rate, scheduler):
    elsewhere = {"best": {"optimizer.lr": 1e-2}, "worst": {"optimizer.lr": 1e-4}}
    task = dataclasses.replace(large(tables), elsewhere=elsewhere.__getitem__)
    player = players.make_player(f"ours:{scheduler},min_epochs=1,prior={prior}", task, seed=0)
    assert player.work(may_begin=True).params == {"optimizer.lr": rate}


def test_early_stopping_looks_at_more_configurations_than_none(quality, players, tables):
    task = large(tables)
    begun = {
        method: len({event.number for event in quality.simulate(player, task=task, seed=0, slots=2, full_trainings=5)})
        for method in ("random", "ours:asha", "ray:grace1-reduction4")
        if (player := players.make_player(method, task, seed=0))
    }
    assert begun["random"] <= 8
    assert begun["ours:asha"] > 8
    assert begun["ray:grace1-reduction4"] > 8


def test_ours_hears_of_seconds_where_they_were_measured(quality, players, tables):
    task = small(tables)
    player = players.make_player("ours:asha,min_epochs=1", task, seed=0)
    quality.simulate(player, task=task, seed=0, slots=1, full_trainings=9)
    served = {epoch.metrics["usage/seconds"] for trial in player._history for epoch in trial.epochs}
    assert served == {2.0, 3.0, 10.0}


def test_losses_of_a_table_are_cut_at_what_nothing_learnt_has(tables, tmp_path):
    path = tmp_path / "FixedTextRNNClassification_tiny.npz"
    losses = np.array([[0.7, 0.3], [0.7, np.nan], [1e17, 0.5]])
    hp = np.array([[1e-3, 0.9], [1e-2, 0.99], [1e-1, 0.999]])
    np.savez(path, names=np.array(["learning_rate", "beta1"]), hp=hp, valid_loss=losses, test_loss=losses)
    task = tables.taskset(path)
    assert (task.name, task.metric, task.epochs) == ("taskset/tiny", "val/loss", 2)
    assert (task.best, task.worst) == (0.3, 0.7)
    assert task.regret(0.5) == pytest.approx(0.5)
    assert set(task.space.dimensions) == {"learning_rate", "one_minus_beta1"}


def test_methods_are_ranked_run_by_run(quality):
    def run(method, seed, regret):
        return quality.Run(method=method, family="f", task="t", seed=seed, epochs={"1": regret}, seconds={}, trials=1)

    runs = [run("a", 0, 0.1), run("b", 0, 0.2), run("c", 0, 0.2), run("a", 1, 0.4), run("b", 1, 0.0), run("c", 1, 0.3)]
    assert quality.mean_rank(runs, unit="epochs", mark="1") == {"a": 2.0, "b": 1.75, "c": 2.25}
    assert "| a | 25.0 ± 15.0 | 2.0 |" in quality.table(runs, title="f")


def test_what_is_not_there_is_skipped_with_a_line(quality, tmp_path, capsys):
    options = quality.read_options(["--curves", str(tmp_path)])
    assert list(quality.task_names(options)) == []
    assert capsys.readouterr().err.count("is not there") == 3


@pytest.mark.slow
def test_the_command_writes_every_run_and_a_table(tmp_path):
    lines = [line(10 ** -(1 + index / 4), 0.5, 0.5, 0.5 + index / 40) for index in range(12)]
    text = json.dumps({"vary": VARY, "made_with": {}, "curves": lines})
    (tmp_path / "tiny.json.gz").write_bytes(gzip.compress(text.encode()))
    words = ["--curves", str(tmp_path), "--families", "curves", "--methods", "random", "ours:asha", "ours:nothing"]
    words += ["--seeds", "2", "--budget", "2", "--jobs", "1", "--out", str(tmp_path / "runs.json")]
    command = [sys.executable, str(FOLDER / "search_quality.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert {(run["method"], run["task"], run["seed"]) for run in runs} == {
        (method, "curves/tiny", seed) for method in ("random", "ours:asha") for seed in (0, 1)
    }
    assert "curves, by epochs" in done.stdout
    assert "curves, by seconds" in done.stdout
    assert "skipped: ours:nothing is no method here" in done.stderr
