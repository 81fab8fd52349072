"""Faults while a search is at work, as many as are asked for: it ends as if nothing had happened.

    pytest -m long tests/integration/test_chaos.py                   # some of each
    CHAOS=50 pytest -m long -n 0 -s tests/integration/test_chaos.py   # fifty of each; prints what was done

tests/integration/test_kill.py has the short forms of the first two; here each fault is drawn by a seed that is printed.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import time

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]  # fifty of a fault take a while

FAULTS = int(os.environ.get("CHAOS", "3"))
OF_RAY = ("gcs_server", "raylet")


def seeded(what):
    seed = random.randrange(2**32)
    print(f"\n{what}: {FAULTS} faults by seed {seed}")
    return random.Random(seed)


def ends_as(unbroken, *, place, process):
    """The search comes to what the unbroken one did and leaves nothing behind; gives what was printed."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert place.outcome() == unbroken
    nothing_is_left(place)
    return out


def wait_for_an_epoch(place, process):
    while not place.lines() or not any(trial.epochs for trial in place.ledger().trials()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def nothing_is_left(place):
    """No process of the search, and no file that was being written."""
    deadline = time.monotonic() + 30
    while (left := list(of_search(place))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert [path for path in (place.folder / "searches").rglob("*") if path.suffix in (".part", ".tmp")] == []


def of_search(place):
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(place.folder):
                yield process


@pytest.mark.long
def test_drivers_killed_at_any_moment(unbroken, make_place):
    chance, done, searches = seeded("drivers killed"), 0, 0
    while done < FAULTS:
        place = make_place(bare=True)
        place.write_space()
        while True:
            process = place.start("run", "space.yaml")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=chance.uniform(1, 12))
            if process.poll() is not None or done >= FAULTS:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            done += 1
        ends_as(unbroken, place=place, process=process)
        searches += 1
    print(f"{done} drivers killed in {searches} searches, each equal to the unbroken one")


@pytest.mark.long
def test_workers_killed_at_any_moment(unbroken, make_place):
    chance, done, searches = seeded("workers killed"), 0, 0
    while done < FAULTS:
        place = make_place()
        place.write_space()
        process = place.start("run", "space.yaml")
        wait_for_an_epoch(place, process)  # before which three losses end a search in which nothing trains
        while process.poll() is None and done < FAULTS:
            time.sleep(chance.uniform(0.2, 3))
            for worker in place.children(process)[:1] if process.poll() is None else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
                    done += 1
        ends_as(unbroken, place=place, process=process)
        searches += 1
    print(f"{done} workers killed in {searches} searches, each equal to the unbroken one")


@pytest.mark.long
@pytest.mark.parametrize("name", OF_RAY)
def test_rays_own_processes_killed(unbroken, make_place, name):
    place = make_place()
    place.write_space()
    process = place.start("run", "space.yaml")
    while place.lines() < 16 or not (found := place.children(process, [name])):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    found[0].kill()
    out, err = process.communicate(timeout=240)
    assert "Traceback" not in out + err
    assert process.returncode in (0, 1), out + err
    place.told("resume", "cells")
    assert place.outcome() == unbroken


@pytest.mark.long
def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on(unbroken, make_place):
    place = make_place()
    place.write_space(search={"epoch_limit_minutes": 0.3})
    process = place.start("run", "space.yaml")
    while place.lines() < 16 or not (found := place.children(process)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    found[0].suspend()
    out = ends_as(unbroken, place=place, process=process)
    assert "no epoch within 0.3 minutes (search.epoch_limit_minutes)" in out


@pytest.fixture
def cluster():
    """A cluster whose head does no work; nodes with one CPU each come and go."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.long
def test_nodes_lost_at_work(unbroken, make_place, cluster):
    chance, done, searches = seeded("nodes lost"), 0, 0
    nodes = [cluster.add_node(num_cpus=1)]
    while done < FAULTS:
        place = make_place()
        place.write_space()
        process = place.start("run", "space.yaml", "--address", cluster.address)
        wait_for_an_epoch(place, process)
        while process.poll() is None and done < FAULTS:
            time.sleep(chance.uniform(0, 2))
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
            done += 1
            time.sleep(chance.uniform(8, 15))
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
        assert "Traceback" not in out + err
        assert place.outcome() == unbroken
        if any(trial.losses for trial in place.ledger().trials()):
            assert re.search(r"lost its worker in epoch \d+ \((node|its process) .*(was lost|died|answer)\)", out)
            print(*[line for line in out.splitlines() if "lost its worker" in line], sep="\n")
        searches += 1
    print(f"{done} nodes lost in {searches} searches, each equal to the unbroken one")
