import logging

import pytest
import ray
from ray.cluster_utils import Cluster

from search.ledger import ledger as ledgers
from search.space.spec import SearchSpec
from search.tune.place import gpu_share, make_places
from search.tune.worker import leg_settings


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


def test_a_worker_is_told_every_depth_that_the_space_has(tmp_path):
    depths = [0, 0.5, "stage3", ["stage4"]]
    document = with_gpu(0.0).model_dump() | {"vary": {"freeze.depth": {"choice": depths}}}
    spec = SearchSpec.model_validate(document)
    ledger = ledgers.create(tmp_path, name="s", storage=None, space=spec.space, metric="val/loss", notes={})
    place = make_places(spec, ledger=ledger, is_joined=False)()
    assert leg_settings(trial={}, folder=tmp_path, start=0, place=place)["depths"] == depths
    assert with_gpu(0.0).depths == [0.0]
    ranged = document | {"vary": {"freeze.depth": {"uniform": [0.0, 1.0]}}}
    assert SearchSpec.model_validate(ranged).depths == []
