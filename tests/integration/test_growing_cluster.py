"""A search on a cluster that was begun elsewhere: a machine with a GPU comes while it is at work, or none comes ever."""

import logging
import signal
import time

import pytest
import ray
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    """A Ray cluster whose head has one CPU and no GPU, joined by this process too."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def wait_until(happened, *, process):
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.long
def test_trials_that_begin_after_a_gpu_has_come_ask_for_it(make_place, cluster):
    place = make_place()
    place.write_space(
        search={"trials": 12},
        scheduler={"name": "none", "max_epochs": 2},
        resources={"gpu": "auto", "concurrency": 2},
        soup=0,
    )
    process = place.start("run", "space.yaml", "--address", cluster.address)
    wait_until(lambda: place.lines() and any(trial.epochs for trial in place.ledger().trials()), process=process)
    cluster.add_node(num_cpus=1, num_gpus=1)  # in name only: the trial takes the CPU of it
    wait_until(lambda: ray.cluster_resources().get("GPU") and not ray.available_resources().get("GPU"), process=process)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert {trial.state for trial in place.ledger().trials()} == {"COMPLETE"}


def test_ctrl_c_ends_a_search_that_waits_for_room(make_place, cluster):
    search = make_place()
    search.write_space(resources={"gpu": 1}, soup=0)
    process = search.start("run", "space.yaml", "--address", cluster.address)
    while not search.lines() or not search.ledger().trials():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "To go on: python -m search resume cells" in err
    assert "Traceback" not in out + err
