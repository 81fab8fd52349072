"""A search on two hosts that have nothing in common but a network between them and one shared folder.

Of the one that trains the clock may be an hour off, all shared memory taken, or three quarters of the time missing.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).parents[2]
AT_WORK = ("ray::TrialActor", "ray::ResourceTrainable")  # Ray shows one or the other
PORT = 6379  # nothing else has it in a network of its own


@dataclass(frozen=True)
class Host:
    """Namespaces of its own for network, files and name, which ``process`` holds."""

    process: psutil.Popen
    address: str

    def words(self, *command):
        """What runs a command on this host."""
        return ["nsenter", "--target", str(self.process.pid), "--net", "--mount", "--uts", "--", *map(str, command)]

    def sh(self, script):
        done = subprocess.run(self.words("sh", "-ec", script), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ray(self, *words, **environment):
        """A Ray node, until its process is killed."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={self.address}"]
        return subprocess.Popen(
            self.words(*command, *words),
            env=own_environment() | environment,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def own_environment():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environment | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "/tmp/cache"}


@contextmanager
def host(number, *, seen):
    """A host of which /tmp, /var/tmp, /dev/shm and the home are its own, but for the folders that are ``seen``."""
    process = psutil.Popen(["unshare", "--net", "--mount", "--uts", "sleep", "infinity"])
    try:
        made = Host(process, address=f"10.77.0.{number + 1}")
        deadline = time.monotonic() + 10
        while process.name() != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        private = ["/tmp", "/var/tmp", "/dev/shm", str(Path.home())]
        hidden = [str(folder) for folder in seen if any(Path(folder).is_relative_to(above) for above in private)]
        kept = list(enumerate(dict.fromkeys(hidden)))
        lines = [f"hostname host{number}", "mount -t tmpfs tmpfs /mnt"]
        lines += [f"mkdir /mnt/{index} && mount --bind '{folder}' /mnt/{index}" for index, folder in kept]
        lines += [f"mount -t tmpfs tmpfs {folder}" for folder in private]
        lines += [f"mkdir -p '{folder}' && mount --bind /mnt/{index} '{folder}'" for index, folder in kept]
        made.sh("\n".join(lines))
        yield made
    finally:
        process.kill()
        process.wait()


def join_by_a_wire(first, second):
    """It goes with the namespaces that its ends are in."""
    left, right = f"left{os.getpid()}", f"right{os.getpid()}"
    subprocess.run(["ip", "link", "add", left, "type", "veth", "peer", "name", right], check=True)
    for one, end in ((first, left), (second, right)):
        subprocess.run(["ip", "link", "set", end, "netns", str(one.process.pid)], check=True)
        one.sh(f"ip addr add {one.address}/24 dev {end}; ip link set {end} up; ip link set lo up")


@contextmanager
def at_work(process):
    """A process, which ends with all that it began."""
    try:
        yield process
    finally:
        for one in [*children(process), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@pytest.fixture
def hosts(tmp_path):
    """Two hosts and the folder that both see."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"hosts of their own need root and {', '.join(missing) or 'namespaces'}")
    if subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True).returncode:
        pytest.skip("namespaces cannot be made here")
    shared = tmp_path / "shared"
    shared.mkdir()
    seen = [shared, ROOT, sys.prefix, sys.base_prefix]
    with host(0, seen=seen) as first, host(1, seen=seen) as second:
        join_by_a_wire(first, second)
        yield first, second, shared


def until(happened, *, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def answers(host, address):
    code = f"import socket; socket.create_connection(({address!r}, {PORT}), timeout=2)"
    return subprocess.run(host.words(sys.executable, "-c", code), capture_output=True).returncode == 0


def children(process):
    """All that a process began; nothing of one that is gone."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def off_by_an_hour():
    """What lets a process see another time of day."""
    found = sorted(Path("/usr/lib").glob("**/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("needs libfaketime")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": "+1h"}


@contextmanager
def slowed(node):
    """Inside, what works on a node gets a quarter of its time."""
    ended, slowed_processes = Event(), set()

    def slow():
        while not ended.is_set():
            for change, seconds in ((psutil.Process.suspend, 0.3), (psutil.Process.resume, 0.1)):
                for process in children(node):
                    with suppress(psutil.NoSuchProcess):
                        if any(title in " ".join(process.cmdline()) for title in AT_WORK):
                            change(process)
                            slowed_processes.add(process.pid)
                time.sleep(seconds)

    thread = Thread(target=slow)
    thread.start()
    try:
        yield slowed_processes
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("wrong", ["nothing", "clock", "memory", "slow"])
def test_what_is_not_in_the_shared_folder_is_not_needed(hosts, make_place, cells_for_search, unbroken, wrong):
    first, second, shared = hosts
    assert (first.sh("hostname"), second.sh("hostname")) == ("host0\n", "host1\n")
    shutil.copytree(cells_for_search, shared / "images")
    place = replace(make_place(bare=True), folder=shared)
    place.write_space(
        search={"folder": str(shared / "searches")}, base={"data": {"path": str(shared / "images"), "image_size": 32}}
    )
    if wrong == "memory":
        second.sh("mount -o remount,size=64m /dev/shm; head -c 64m /dev/zero > /dev/shm/full || true")
        assert "100%" in second.sh("df /dev/shm")
    address = f"{first.address}:{PORT}"
    with ExitStack() as stack:
        stack.enter_context(at_work(first.ray("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")))
        until(lambda: answers(second, first.address), seconds=60)
        environment = off_by_an_hour() if wrong == "clock" else {}
        ahead = subprocess.check_output(second.words("date", "+%s"), env=own_environment() | environment)
        assert int(ahead) - time.time() == pytest.approx(3600 if environment else 0, abs=5)
        node = stack.enter_context(at_work(second.ray(f"--address={address}", "--num-cpus=1", **environment)))
        slow = stack.enter_context(slowed(node)) if wrong == "slow" else set()
        own = first.sh("mktemp -d /tmp/own.XXXX").strip()  # where MLflow's database comes to lie
        command = [sys.executable, "-m", "search", "run", str(shared / "space.yaml"), "--address", address]
        done = subprocess.run(
            first.words("sh", "-c", f'cd {own} && exec "$@"', "sh", *command),
            env=own_environment(),
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    trials, notes = place.outcome()
    assert trials == unbroken[0]
    assert notes["test"] == unbroken[1]["test"]
    assert notes["data"].fingerprint == unbroken[1]["data"].fingerprint
    assert "mlflow.db" in first.sh(f"ls {own}")
    assert second.sh("ls /tmp/cache").strip()  # of its own, since it has no other
    assert Path(own).name not in second.sh("ls /tmp")
    assert bool(slow) == (wrong == "slow")
