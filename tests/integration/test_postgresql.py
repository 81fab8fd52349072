"""A PostgreSQL of the test's own, killed while a search has its ledger, or MLflow its runs, there.

CHAOS=10 pytest -m long -n 0 -s tests/integration/test_postgresql.py   # so often; prints what was done
"""

import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from trainable.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(7200)]

FAULTS = int(os.environ.get("CHAOS", "3"))
USER = "postgres"  # whom the server runs as where the tests run as root, which it refuses


class Server:
    """A database server on a port of its own, which is killed and started again over the same files."""

    def __init__(self, folder: Path, *, programs: Path) -> None:
        self._data, self._programs = folder / "data", programs
        self._as = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self._port = any_port.getsockname()[1]
        words = ["-D", self._data, "-U", "searcher", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run([programs / "initdb", *words], check=True, capture_output=True, cwd=folder, **self._as)
        self.address = self.database("postgres")
        self._process = None

    def database(self, name):
        """The address of one of its databases."""
        return f"postgresql+psycopg://searcher@127.0.0.1:{self._port}/{name}"

    def new_database(self, name):
        """The address of a database that is made."""
        import psycopg

        with psycopg.connect(self.address.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.database(name)

    def start(self):
        words = ["-D", self._data, "-p", str(self._port), "-h", "127.0.0.1", "-c", "unix_socket_directories="]
        self._process = subprocess.Popen(
            [self._programs / "postgres", *words],
            cwd=self._data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        deadline = time.monotonic() + 60
        while not self._takes_work():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def _takes_work(self):
        import psycopg

        with suppress(psycopg.OperationalError):
            with psycopg.connect(self.address.replace("+psycopg", "")) as connection:
                connection.execute("SELECT 1")
            return True
        return False

    def kill(self):
        """All its processes at once, as where the machine loses power."""
        if self._process is None:
            return
        for one in [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()
        self._process = None


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    programs = shutil.which("postgres")
    if programs is None:
        pytest.skip("there is no PostgreSQL to start here")
    if os.geteuid() == 0 and USER not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip(f"as root a server needs a user {USER!r}")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # below which whom the server runs as may look
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, pwd.getpwnam(USER).pw_gid)
        server = Server(folder, programs=Path(programs).resolve().parent)
        try:
            server.start()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


def test_killed_under_the_ledger_the_search_stops_with_one_line_and_ends_as_the_unbroken_one(
    server, make_place, unbroken
):
    seed = random.randrange(2**32)
    chance, done, searches = random.Random(seed), 0, 0
    print(f"\ndatabase killed under the ledger: {FAULTS} faults by seed {seed}")
    while done < FAULTS:
        place, name = make_place(), f"cells{searches}"
        place.write_space(search={"storage": server.address, "name": name})
        process = place.start("run", "space.yaml")
        if not searches:  # one kill at least comes while the search is at work
            while not has_epochs(place, name):
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            server.kill()
            done += 1
            stopped(process, code=1, words="search.storage: the database does not answer any more (")
            server.start()
            process = place.start("run", "space.yaml")
        while done < FAULTS and not ends_within(chance.uniform(4, 12), process):
            server.kill()
            done += 1
            stopped(process, code=1, words="search.storage: ")
            stopped(place.start("run", "space.yaml", "--set", "search.seed=9"), code=1, words="search.storage: ")
            server.start()
            if has_begun(place, name):
                other = place.start("run", "space.yaml", "--set", "search.seed=9")
                stopped(other, code=2, words=f"search.name: a search {name!r} exists and differs")
            process = place.start("run", "space.yaml")
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
        assert place.outcome(name) == unbroken
        searches += 1
    print(f"{done} times killed in {searches} searches, each equal to the unbroken one")


def ends_within(seconds, process):
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    return process.poll() is not None


def stopped(process, *, code, words):
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert "Traceback" not in out + err
    assert f"error: {words}" in err


def has_epochs(place, name):
    try:
        return any(trial.epochs for trial in place.ledger(name).trials())
    except UserError:
        return False


def has_begun(place, name):
    """Whether the search is in the database, which is then held against any other space."""
    try:
        return place.ledger(name).notes.spec is not None
    except UserError:
        return False


def test_killed_under_mlflow_nothing_stops_and_what_is_missing_is_written_later(server, make_place, unbroken):
    place = make_place()
    address = server.new_database("runs")  # MLflow's tables and a ledger's cannot be in one
    place.write_space(tracking={"uri": address, "experiment": "kept"})
    process = place.start("run", "space.yaml")
    while place.lines() < 16:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    server.kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    assert place.outcome() == unbroken
    server.start()
    assert "6 trials are in" in place.told("sync", "cells")
    client = MlflowClient(address)
    (experiment,) = [one for one in client.search_experiments() if one.name == "kept"]
    runs = client.search_runs([experiment.experiment_id])
    trials = [run for run in runs if run.data.tags["search.kind"] == "trial"]
    assert len(trials) == 6
    assert all(run.info.status != "RUNNING" for run in runs)
