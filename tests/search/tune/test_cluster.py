"""Where there is a Ray to run a search on, what is said where there is none, and what is kept from the terminal."""

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from search.tune.cluster import LONGEST_FOLDER, cluster
from trainable.errors import OutageError, UserError

NOBODYS_TOKEN = "0" * 32
HEADS_TOKEN = "1" * 32


@pytest.mark.parametrize("is_long", [True, False])
def test_a_local_ray_that_does_not_start_is_one_line_about_this_machine(tmp_path, monkeypatch, is_long):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 40) if is_long else tmp_path / "file" / "below"))
    with (
        pytest.raises(UserError, match=r"^Ray cannot be started on this machine; RAY_TMPDIR [^\n]* \([^\n]+\)$"),
        cluster(address=None),
    ):
        pass


def test_a_cluster_that_cannot_be_joined_is_one_line_about_its_address():
    with (
        pytest.raises(OutageError, match=r"^--address: cannot join Ray at 'nowhere:x'; [^\n]+ \([^\n]+\)$"),
        cluster(address="nowhere:x"),
    ):
        pass


def run(code, *words, home, **environment):
    """What a process of a user with this home prints, and what it prints as errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *words],
        capture_output=True,
        text=True,
        env=environment | {"HOME": str(home)},
        timeout=120,
    )
    return done.stdout, done.stderr


RESOURCES = """
    import sys
    from search.tune.cluster import cluster, total_resources
    from trainable.errors import OutageError
    try:
        with cluster(address=(sys.argv[1:] or [None])[0], num_cpus=1 if not sys.argv[1:] else None):
            print(total_resources()["cpu"])
    except OutageError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_local_ray_starts_under_a_long_tmpdir_and_leaves_nothing_in_the_home(tmp_path):
    home, folder = tmp_path / "home", tmp_path / ("t" * LONGEST_FOLDER)
    home.mkdir()
    folder.mkdir()
    out, err = run(RESOURCES, home=home, TMPDIR=str(folder))
    assert (out, err) == ("1.0\n", "")
    assert list(home.iterdir()) == []


@contextmanager
def head(home, *, mode="token"):
    """The address of a cluster of one node that asks for the token of its home, or, where ``disabled``, for none."""
    (home / ".ray").mkdir(parents=True)
    (home / ".ray/auth_token").write_text(HEADS_TOKEN)
    code = """
        from ray.cluster_utils import Cluster
        head = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 0})
        print(head.address, flush=True)
        input()
        head.shutdown()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HOME": str(home), "RAY_AUTH_MODE": mode},
    )
    try:
        lines = iter(process.stdout.readline, "")
        yield next(line.strip() for line in lines if line.count(":") == 1 and line.strip()[-1].isdigit())
    finally:
        process.communicate("\n", timeout=60)


@pytest.mark.slow
def test_a_protected_cluster_is_joined_by_its_token_and_by_no_other_without_a_raw_log(tmp_path):
    with head(tmp_path / "home") as address:
        assert run(RESOURCES, address, home=tmp_path / "home") == ("3.0\n", "")
        out, err = run(RESOURCES, address, home=tmp_path / "home", RAY_AUTH_TOKEN=NOBODYS_TOKEN)
    assert out.startswith(f"--address: cannot join Ray at {address!r}; the token here may be another than its head's")
    assert (out.count("\n"), err) == (1, "")


@pytest.mark.slow
def test_an_open_cluster_is_worked_on_though_there_is_a_token(tmp_path):
    code = """
        import sys
        import ray
        from search.tune.cluster import cluster
        with cluster(address=sys.argv[1]):
            class Actor:
                def answer(self):
                    return 42
            print(ray.get(ray.remote(Actor).remote().answer.remote(), timeout=60))
    """
    with head(tmp_path / "home", mode="disabled") as address:
        assert run(code, address, home=tmp_path / "home") == ("42\n", "")


@pytest.mark.slow
def test_a_node_that_dies_prints_no_line_of_rays_logs(tmp_path):
    code = """
        import ray, time
        from ray.cluster_utils import Cluster
        from search.tune.cluster import cluster
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
        with cluster(address=nodes.address):
            node = nodes.add_node(num_cpus=1)
            nodes.wait_for_nodes()
            ray.get(ray.remote(lambda: 1).remote())
            print("dies", flush=True)
            nodes.remove_node(node, allow_graceful=False)
            while ray.cluster_resources().get("CPU"):
                time.sleep(0.2)
            time.sleep(3)
            print("died", flush=True)
        nodes.shutdown()
    """
    out, err = run(code, home=tmp_path, RAY_health_check_period_ms="500")
    assert "died" in out, err
    assert out.partition("dies\n")[2].partition("died")[0] == ""
    assert "raylet" not in err


GARBAGE = """
    import gc, threading
    import ray
    from search.tune.cluster import cluster

    class Held: pass

    def drop(refs):
        while refs:
            held = Held()
            held.itself, held.ref = held, refs.pop()

    gc.set_threshold(10)
    with cluster(address=None, num_cpus=1):
        name = ray.put(1).binary()
        refs = [ray.ObjectRef(name) for _ in range(500_000)]
        thread = threading.Thread(target=drop, args=[refs])
        thread.start()
    thread.join()
    print("well", gc.isenabled())
"""


@pytest.mark.slow
def test_garbage_that_another_thread_frees_meanwhile_does_not_end_the_process(tmp_path):
    assert run(GARBAGE, home=tmp_path)[0] == "well True\n"
