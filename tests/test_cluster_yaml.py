import json
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

CLUSTER = yaml.safe_load((Path(__file__).parents[1] / "cluster.yaml").read_text())
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


def test_the_cluster_file_is_what_ray_takes():
    jsonschema.validate(CLUSTER, SCHEMA)


def test_ray_would_refuse_a_wrong_key():
    with pytest.raises(jsonschema.ValidationError, match="worker_type"):
        jsonschema.validate(CLUSTER | {"worker_type": "gpu"}, SCHEMA)


def test_there_is_a_head_that_trains_nothing_and_workers_that_come_and_go():
    types = dict(CLUSTER["available_node_types"])
    head = types.pop(CLUSTER["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    (worker,) = types.values()
    assert worker["resources"] == {"CPU": 96, "GPU": 8}
    assert worker["node_config"]["InstanceType"] == "p4d.24xlarge"
    assert (worker["min_workers"], worker["max_workers"]) == (0, CLUSTER["max_workers"])


def test_the_head_may_ask_for_workers_and_they_find_it():
    assert any("--autoscaling-config=" in command for command in CLUSTER["head_start_ray_commands"])
    assert any("--address=$RAY_HEAD_IP" in command for command in CLUSTER["worker_start_ray_commands"])


def test_every_node_mounts_the_shared_files_before_it_installs_the_project():
    commands = CLUSTER["setup_commands"]
    mount = next(index for index, command in enumerate(commands) if "mount -t nfs4" in command)
    install = next(index for index, command in enumerate(commands) if "$HOME/finetune-search" in command)
    assert mount < install
    assert "/home/ubuntu/finetune-search" in CLUSTER["file_mounts"]


def test_every_node_has_the_token_and_asks_for_it():
    assert CLUSTER["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (CLUSTER["head_start_ray_commands"], CLUSTER["worker_start_ray_commands"]):
        (start,) = (command for command in commands if "ray start" in command)
        assert "RAY_AUTH_MODE=token $HOME/venv/bin/ray start" in start
