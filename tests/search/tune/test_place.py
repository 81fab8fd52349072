import logging

import pytest
import ray
from ray.cluster_utils import Cluster

from search.space.spec import SearchSpec
from search.tune.place import gpu_share


@pytest.fixture
def grown_cluster():
    """A Ray cluster whose head has one CPU, joined; nodes can be added to it."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def with_gpu(gpu, *, cpu=1):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"max_epochs": 9},
            "resources": {"gpu": gpu, "cpu": float(cpu)},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def test_auto_asks_for_a_gpu_as_soon_as_the_cluster_has_one_and_from_then_on(grown_cluster):
    share = gpu_share(with_gpu("auto"), is_joined=True)
    assert share() == 0.0
    node = grown_cluster.add_node(num_cpus=1, num_gpus=1)
    grown_cluster.wait_for_nodes()
    assert share() == 1.0
    grown_cluster.remove_node(node)
    assert share() == 1.0
    assert gpu_share(with_gpu(0.0), is_joined=True)() == 0.0
    assert gpu_share(with_gpu(0.25), is_joined=True)() == 0.25


def test_auto_asks_a_joined_cluster_without_room_for_a_gpu(grown_cluster):
    spec = with_gpu("auto", cpu=2)  # of which the head has one
    assert gpu_share(spec, is_joined=True)() == 1.0
    assert gpu_share(spec, is_joined=False)() == 0.0
    grown_cluster.add_node(num_cpus=2)
    grown_cluster.wait_for_nodes()
    assert gpu_share(spec, is_joined=True)() == 0.0
