"""What docs/clusters.md and docs/reliability.md tell holds, as far as a machine without a cluster can say."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import typer
import yaml

from search.cli.app import make_app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/clusters.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_call_names_a_command_and_options_that_exist():
    command = typer.main.get_command(make_app()).commands["run"]
    known = {option for parameter in command.params for option in parameter.opts}
    calls = re.findall(r"python -m search run ([^\n&]*)", PAGE)
    assert len(calls) == 4
    for call in calls:
        words = shlex.split(call.rstrip('"') if call.count('"') % 2 else call)
        assert {word for word in words if word.startswith("--")} <= known


def test_the_job_of_kubernetes_runs_one_search_where_nodes_come_and_go():
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["entrypoint"].startswith("python -m search run /shared/")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert "shared" in mounted
        assert mounted == {volume["name"] for volume in pod["volumes"]}


FAKES = {
    "scontrol": "echo node-a; echo node-b",
    "srun": 'echo "srun $*" >> "$CALLS"; sleep 1',
    "ray": 'echo "ray $*" >> "$CALLS"',
    "python": 'echo "python $*" >> "$CALLS"; exit 3',
}


def test_the_script_of_slurm_starts_ray_on_every_node_and_ends_as_the_search_does(tmp_path):
    (text,) = blocks("bash")
    for name, body in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_ID": "1234",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    ended = subprocess.run(
        ["bash", "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 3, ended.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    where = "node-a:6613"
    (head,) = [call for call in calls if "--head" in call]
    assert "--nodelist=node-a ray start --head --node-ip-address=node-a --port=6613" in head
    (worker,) = [call for call in calls if "--nodelist=node-b" in call]
    assert f"ray start --address={where}" in worker
    (search,) = [call for call in calls if call.startswith("python")]
    assert search == f"python -m search run {tmp_path}/spaces/resnet.yaml --data {tmp_path}/images --address {where}"


def test_every_fault_of_the_page_of_reliability_names_tests_that_there_are():
    text = (ROOT / "docs/reliability.md").read_text()
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert sorted(set(re.findall(r"`(test_\w+)`", text)) - there) == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 20
    assert [row for row in rows if "`test_" not in row and "killed" in row] == []
