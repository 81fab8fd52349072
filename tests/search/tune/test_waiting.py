"""A search on a cluster that has no room for it: what is said."""

import logging

import pytest
import ray
from ray.cluster_utils import Cluster

from search.tune.place import Place
from search.tune.waiting import SECONDS_BETWEEN, Waiting, never_fits


@pytest.fixture
def cluster():
    """A Ray cluster of one CPU and no GPU, joined."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def place(*, cpu=1.0, gpu=0.0):
    return Place(cpu=cpu, gpu=gpu, threads=1, fingerprints={}, directory="/")


def test_work_that_waits_says_so_every_half_minute_and_anew_when_it_waits_again(cluster, caplog):
    seconds = [0.0]
    look = Waiting(lambda: place(gpu=1.0), clock=lambda: seconds[0]).look
    told = []
    for waits in (True, True, True, False, True, True):
        look(waits)
        told.append(len(caplog.records))
        seconds[0] += SECONDS_BETWEEN
    assert told == [0, 1, 2, 2, 2, 3]
    assert caplog.messages[0] == (
        "waiting for room: asks for 1 CPUs and 1 GPUs, the cluster has 1 and 0, free or not; Ctrl-C ends the search"
    )


def test_what_a_cluster_cannot_hold_is_told_from_what_it_can(cluster):
    assert never_fits(place(gpu=0.5))
    assert never_fits(place(cpu=2.0))
    assert not never_fits(place())
