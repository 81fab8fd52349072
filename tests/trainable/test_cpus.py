import os
import subprocess
import sys

import pytest

from trainable.cpus import limit_threads, usable_cpus

ALL = len(os.sched_getaffinity(0))


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_without_any_limit_all_cpus_of_the_affinity_are_used(tmp_path):
    assert usable_cpus(environment={}, root=tmp_path) == ALL


def test_a_process_bound_to_one_cpu_uses_one():
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{cpu}]); from trainable.cpus import usable_cpus; print(usable_cpus())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize("folder", ["pods/mine", "pods", "."])
def test_the_quota_of_a_cgroup_or_of_one_above_it_is_kept(tmp_path, folder):
    write(tmp_path, "proc/self/cgroup", "0::/pods/mine\n")
    write(tmp_path, "sys/fs/cgroup/pods/mine/cpu.max", "max 100000\n")
    write(tmp_path, f"sys/fs/cgroup/{folder}/cpu.max", "100000 100000\n")
    assert usable_cpus(environment={}, root=tmp_path) == 1


def test_the_quota_of_a_cgroup_of_version_1_is_kept(tmp_path):
    write(tmp_path, "proc/self/cgroup", "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert usable_cpus(environment={}, root=tmp_path) == 1


@pytest.mark.parametrize("quota", ["max 100000", "900000 100000"])
def test_a_quota_above_what_there_is_allows_no_more(tmp_path, quota):
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", quota)
    assert usable_cpus(environment={}, root=tmp_path) == min(ALL, 9)


def test_a_share_of_one_cpu_is_one(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "20000 100000")
    assert usable_cpus(environment={}, root=tmp_path) == 1


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "NSLOTS", "PBS_NCPUS", "LSB_DJOB_NUMPROC"])
def test_what_a_batch_system_grants_is_kept(tmp_path, name):
    assert usable_cpus(environment={name: "1"}, root=tmp_path) == 1


def test_a_grant_that_is_no_number_is_passed_over(tmp_path):
    assert usable_cpus(environment={"SLURM_CPUS_ON_NODE": "2(x3)", "NSLOTS": ""}, root=tmp_path) == ALL


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU is all there is")
def test_threads_are_as_many_as_cpus_may_be_used_unless_the_user_says_otherwise():
    environment = {"NSLOTS": "1"}
    limit_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "1"
    environment = {"NSLOTS": "1", "OMP_NUM_THREADS": "3"}
    limit_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
