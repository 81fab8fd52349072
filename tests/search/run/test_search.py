import logging

import pytest
import ray
from ray.cluster_utils import Cluster

from search.ledger.ledger import LedgerFailsError, NoSearchError
from search.ledger.refits import existing_refits
from search.ledger.stored import SPEC_FILE
from search.run.search import _variants as variants
from search.run.search import run_search
from search.space.spec import SearchSpec
from search.tune.place import gpu_share
from trainable.config.trial import TrialConfig
from trainable.errors import UserError

BACKBONES = ["resnet10t", "resnet18", "resnet26"]


def make_spec(vary, **data):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "base": {"data": {"path": "images"} | data, "model": {"weights": "random"}},
            "vary": {"model.name": {"choice": BACKBONES}, **vary},
        }
    )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("data.sampler", {"choice": ["shuffle", "balanced", "sqrt"]}),
        ("data.rehearsal_share", {"uniform": [0.1, 2.0]}),
        ("data.prefix_gb", {"choice": [0.0, 1.0]}),
        ("data.workers", {"int": [0, 4]}),
    ],
)
def test_what_has_no_say_in_images_or_networks_is_prepared_once(path, values):
    found = variants(make_spec({path: values}, rehearsal="old"))
    assert [one["model"]["name"] for one in found] == BACKBONES
    assert all(TrialConfig.model_validate(one) for one in found)


def test_every_image_size_is_prepared_with_every_backbone():
    found = variants(
        make_spec({"data.image_size": {"choice": [32, 64]}, "data.sampler": {"choice": ["shuffle", "sqrt"]}})
    )
    pairs = {(one["model"]["name"], one["data"]["image_size"]) for one in found}
    assert pairs == {(name, size) for name in BACKBONES for size in (32, 64)}
    assert len(found) == 6


def begun(folder, *, seed=0):
    """A search whose database does not answer, or has no driver here."""
    storage = "postgresql+psycopg://user@127.0.0.1:1/none"
    search = {"name": "cells", "trials": 1, "seed": seed, "folder": str(folder), "storage": storage}
    document = make_spec({}).model_dump()
    return SearchSpec.model_validate(document | {"search": document["search"] | search})


def test_a_search_whose_database_does_not_answer_is_not_begun_anew(tmp_path):
    spec = begun(tmp_path)
    file = tmp_path / "cells" / SPEC_FILE
    file.parent.mkdir()
    file.write_text(spec.model_dump_json())
    before = file.read_bytes()
    with pytest.raises((LedgerFailsError, UserError), match=r"^search\.storage: cannot open the database") as refused:
        run_search(begun(tmp_path, seed=9), address=None, listeners=[])
    assert not isinstance(refused.value, NoSearchError)
    assert file.read_bytes() == before


def test_refits_whose_database_does_not_answer_are_not_taken_for_none(tmp_path):
    with pytest.raises((LedgerFailsError, UserError), match=r"^search\.storage: cannot open the database"):
        existing_refits(begun(tmp_path), folder=tmp_path / "cells")
    assert existing_refits(make_spec({}), folder=tmp_path / "cells") is None


@pytest.fixture
def grown_cluster():
    """A Ray cluster whose head has one CPU, joined; nodes can be added to it."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def with_gpu(gpu, *, cpu=1):
    spec = make_spec({})
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpu": gpu, "cpu": float(cpu)})})


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
