import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import ray
from ray.cluster_utils import Cluster

from search.engine.conductor import Leg
from search.ledger import ledger as ledgers
from search.ledger.trials import EpochRecord, Trial
from search.space.spec import SearchSpec
from search.tune.place import Packing, Place, gpu_share, make_places
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


def measured_alone():
    """A trial that had a GPU of 80 GB alone and took 10 of it."""
    told = {"usage/gpu_share": 1.0, "usage/gpu_bytes": 10e9, "usage/gpu_total_bytes": 80e9, "usage/seconds": 10.0}
    epoch = EpochRecord(number=1, metrics=told, recorded=datetime.now(UTC))
    return Trial(number=0, params={"optimizer.lr": 0.2}, state="RUNNING", epochs=(epoch,), target=3, origin="random")


def test_with_auto_trials_share_a_gpu_as_their_like_were_measured(grown_cluster, caplog):
    grown_cluster.add_node(num_cpus=3, num_gpus=1)
    grown_cluster.wait_for_nodes()
    leg = Leg(number=1, params={"optimizer.lr": 0.1}, start=0, until=3)
    trials = []
    for gpu, shares in (("auto", [1.0, 0.5]), (0.25, [0.25, 0.25])):
        place = Place(cpu=1, gpu=1.0 if gpu == "auto" else gpu, threads=1, fingerprints={}, directory="")
        packing = Packing(with_gpu(gpu), place=lambda place=place: place, trials=lambda: trials)
        trials.clear()
        assert packing.of(leg).gpu == shares[0]
        trials.append(measured_alone())
        assert packing.of(leg) == replace(place, gpu=shares[1], packed=gpu == "auto")
        assert packing.at_once(can_grow=False) == round(1 / shares[1])
    told = "packing: 2 trials of this search share a GPU, 10.0 GB each; resources.gpu decides otherwise"
    assert caplog.messages == [told]


def test_no_more_share_a_gpu_than_are_at_work_at_once(grown_cluster):
    grown_cluster.add_node(num_cpus=3, num_gpus=2)
    grown_cluster.wait_for_nodes()
    place = Place(cpu=1, gpu=1.0, threads=1, fingerprints={}, directory="")
    for concurrency, share in ((1, 1.0), (2, 1.0), (3, 0.5), (None, 0.5)):
        spec = with_gpu("auto")
        spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"concurrency": concurrency})})
        packing = Packing(spec, place=lambda: place, trials=lambda: [measured_alone()])
        assert packing.of(Leg(number=1, params={}, start=0, until=3)).gpu == share


def test_without_a_gpu_auto_packs_nothing(grown_cluster):
    place = Place(cpu=1, gpu=0.0, threads=1, fingerprints={}, directory="")
    packing = Packing(with_gpu("auto"), place=lambda: place, trials=list)
    assert packing.of(Leg(number=0, params={}, start=0, until=1)) == place
    assert packing.at_once(can_grow=False) == 1
