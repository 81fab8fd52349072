"""A search on a cluster without a worker: Ray's autoscaler starts nodes for it, by its own fake provider, and ends them."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]

HEAD = "f" * 51 + "0" * 5  # as the provider calls it
CONFIG = {
    "cluster_name": "growing",
    "max_workers": 2,
    "upscaling_speed": 20,
    "idle_timeout_minutes": 0.2,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    # What a real machine would be set up with, which Ray looks for.
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "cluster_synced_files": [],
    **{
        f"{what}_commands": []
        for what in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    },
}


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


@pytest.fixture
def head(tmp_path):
    """The process of a head without CPUs, whose autoscaler may start two nodes of one CPU, and its address."""
    config = tmp_path / "cluster.json"
    port = free_port()
    provider = {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "use_node_id_as_ip": True,
        "gcs_address": f"127.0.0.1:{port}",
    }
    config.write_text(json.dumps(CONFIG | {"provider": provider}))
    words = ["start", "--head", "--block", "--num-cpus=0", f"--port={port}", "--node-ip-address=127.0.0.1"]
    words += ["--include-dashboard=false", f"--autoscaling-config={config}"]
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    environment |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
    head = psutil.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *words],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: answers(port), seconds=60)
    yield head, f"127.0.0.1:{port}"
    for process in [*head.children(recursive=True), head]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(happened, *, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def num_nodes(head):
    """How many nodes the autoscaler has at work: each has a raylet, and so has the head."""
    return sum(process.name() == "raylet" for process in head.children(recursive=True)) - 1


def test_nodes_are_started_for_a_search_and_ended_after_it(make_place, head):
    process, address = head
    until(lambda: num_nodes(process) == 0, seconds=60)
    place = make_place()
    place.write_space(
        search={"trials": 4}, scheduler={"name": "none", "max_epochs": 30}, resources={"concurrency": 2}, soup=0
    )
    search = place.start("run", "space.yaml", "--address", address)
    most = 0
    while search.poll() is None:
        most = max(most, num_nodes(process))
        time.sleep(0.5)
    out, err = search.communicate()
    assert search.returncode == 0, out + err
    assert most == 2
    assert "Traceback" not in out + err
    assert [trial.state for trial in place.ledger().trials()] == ["COMPLETE"] * 4
    until(lambda: num_nodes(process) == 0, seconds=120)
