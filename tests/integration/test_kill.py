"""kill -9 of the driver at random moments: the search ends as if nothing had happened."""

import os
import random
import signal
import time

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from search.ledger.lease import lease

pytestmark = pytest.mark.slow

KILLS = 2  # within ten writes each; the search makes about 60
OWN_TAGS = (
    "search.state",
    "search.best",
    "search.kind",
    "search.trial",
    "search.study",
    "search.reason",
    "search.origin",
)


@pytest.fixture(scope="module")
def unbroken(make_place):
    place = make_place()
    place.write_space()
    place.told("run", "space.yaml")
    return place


def killed_again_and_again(place, *, kills, seed):
    """Runs the search, killing its driver ``kills`` times after a random number of writes and a random wait."""
    chance = random.Random(seed)
    done = 0
    while done < kills:
        process = place.start("run", "space.yaml")
        started = place.lines()
        writes = chance.randint(1, 10)
        while process.poll() is None and place.lines() < started + writes:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        done += 1
    place.told("resume", "cells")
    return done


def ledger_dump(place):
    """The outcome, and how often each trial was tried again."""
    return (*place.outcome(), [trial.attempts + trial.losses for trial in place.ledger().trials()])


def mlflow_runs(place):
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "cells"]
    return client, client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000)


def mlflow_dump(place):
    """Every run by name: status, parameters, curves, tags; nothing of time, memory, places or ids."""
    client, runs = mlflow_runs(place)
    dump = {}
    for run in runs:
        curves = {
            key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
            if not key.startswith("usage/")
        }
        params = {key: value for key, value in run.data.params.items() if key != "cfg.data.path"}
        tags = {key: run.data.tags.get(key) for key in OWN_TAGS}
        assert run.info.run_name not in dump, f"two runs are called {run.info.run_name}"
        dump[run.info.run_name] = (run.info.status, params, curves, tags)
    return dump


def test_killed_at_random_moments_it_equals_the_unbroken_search(unbroken, make_place):
    place = make_place(bare=True)  # a kill may come while the database is made
    place.write_space()
    seed = random.randrange(2**32)
    print(f"seed of the moments: {seed}")
    assert killed_again_and_again(place, kills=KILLS, seed=seed) == KILLS
    assert ledger_dump(place) == ledger_dump(unbroken)
    assert mlflow_dump(place) == mlflow_dump(unbroken)


@pytest.mark.long
def test_a_search_by_a_model_of_curves_killed_at_random_moments_equals_the_unbroken_one(make_place):
    whole, killed = make_place(), make_place()
    for place in (whole, killed):
        place.write_space(scheduler={"name": "freeze_thaw", "cost": "epochs"}, sampler={"startup": 2})
    whole.told("run", "space.yaml")
    seed = random.randrange(2**32)
    print(f"seed of the moments: {seed}")
    killed_again_and_again(killed, kills=1, seed=seed)
    assert ledger_dump(killed) == ledger_dump(whole)
    assert "freeze_thaw" in {trial.origin for trial in whole.ledger().trials()}


def test_killed_with_two_workers_nothing_is_lost_or_done_twice(make_place):
    place = make_place()
    place.write_space(resources={"cpu": 1, "concurrency": 2}, search={"trials": 5})
    seed = random.randrange(2**32)
    print(f"seed of the moments: {seed}")
    killed_again_and_again(place, kills=1, seed=seed)
    trials = place.ledger().trials()
    assert len(trials) == 5
    assert {t.state for t in trials} == {"COMPLETE", "PRUNED"}
    assert any(t.state == "COMPLETE" for t in trials)
    for trial in trials:
        assert [e.number for e in trial.epochs] == list(range(1, trial.last_epoch + 1))
        assert trial.last_epoch == trial.target
        assert trial.last_epoch in (1, 2, 4)
    _, runs = mlflow_runs(place)
    children = [run for run in runs if run.data.tags.get("search.kind") == "trial"]
    parents = [run for run in runs if run.data.tags.get("search.kind") == "study"]
    assert sorted(int(run.data.tags["search.trial"]) for run in children) == list(range(5))
    assert len(parents) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [run.data.tags.get("search.best") for run in children].count("true") == 1


def test_the_second_driver_of_a_search_is_refused(make_place):
    place = make_place()
    place.write_space()
    with lease(place.folder / "searches/cells"):
        second = place.call("run", "space.yaml")
    assert second.returncode == 1
    assert f"being run by process {os.getpid()}" in second.stderr


def test_ctrl_c_finishes_the_epoch_twice_stops_at_once_and_neither_loses_anything(unbroken, make_place):
    place = make_place()
    place.write_space()
    times = random.choice((1, 2))  # one a run of the tests: each costs a start of everything
    print(f"Ctrl-C, {times} times")
    process = place.start("run", "space.yaml")
    while place.lines() < 20:
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "python -m search resume cells" in err
    assert "Traceback" not in out + err
    assert place.read("status", "cells")["state"] == "interrupted"
    _, runs = mlflow_runs(place)
    assert not [run for run in runs if run.info.status == "RUNNING"]
    place.told("resume", "cells")
    assert ledger_dump(place) == ledger_dump(unbroken)
    assert mlflow_dump(place) == mlflow_dump(unbroken)


def test_a_worker_killed_in_the_middle_is_replaced_and_its_trial_goes_on(unbroken, make_place):
    place = make_place()
    place.write_space()
    process = place.start("run", "space.yaml")
    while place.lines() < 16:
        time.sleep(0.05)
    while not (workers := place.children(process)):
        assert process.poll() is None
        time.sleep(0.05)
    workers[0].kill()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "lost its worker in epoch" in out
    assert sum(trial.attempts for trial in place.ledger().trials()) == 0  # it is not the trial's fault
    trials, _, again = ledger_dump(place)
    assert trials == unbroken.outcome()[0]
    assert sum(again) == 1
