"""MLflow's pages, served by a real server on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from search.space.space import make_space
from search.tracking.runs import MlflowClient
from search.tracking.ui import serve
from search.tracking.views import view_tags, views
from trainable.errors import OutageError, UserError

PROGRAM = "import sys; from search.tracking.ui import serve; serve(sys.argv[1], port=int(sys.argv[2]))"


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def database(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tags = view_tags(views(make_space({}), metric="val/accuracy", study="pets", search_id="9c1d0000"), time=1)
    MlflowClient(uri).create_experiment("pets", artifact_location=(tmp_path / "artifacts").as_uri(), tags=tags)
    return uri


@pytest.mark.slow
def test_it_serves_this_machine_alone_tells_the_links_and_ends_on_sigterm(database, port, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, database, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        lines = [process.stdout.readline() for _ in range(5)]
        page = f"http://127.0.0.1:{port}"
        assert lines[0] == f"MLflow shows {database}, Ctrl-C ends it:\n"
        assert f"  pets: {page}/#/experiments/1/runs?workflowType=machine_learning\n" in lines
        assert any("viewStateShareKey=pets-9c1d0000-charts-v1" in line for line in lines)
        with urlopen(f"{page}/health") as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(f"{page}/api/2.0/mlflow/experiments/get?experiment_id=1", headers={"Host": "evil.example"}))
        assert addresses_listened_on(port) == {"0100007F"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    _wait_until_closed(port)


def test_a_port_in_use_is_one_clear_line(database):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"--port: {number} on 127\.0\.0\.1 cannot be used \(Address already in use\)"
        ):
            serve(database, port=number)


def test_of_a_server_only_the_link_is_told():
    lines = []
    serve("https://me:hunter2@mlflow.example.org/", port=5000, tell=lines.append)
    (line,) = lines
    assert line.endswith("https://mlflow.example.org/?workflowType=machine_learning")
    assert "hunter2" not in line


def test_a_folder_of_plain_files_is_refused(port):
    with pytest.raises(UserError, match="plain files"):
        serve("mlruns", port=port)


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_is_one_clear_line(port):
    with pytest.raises(OutageError, match=r"did not start on nosuch://host/db"):
        serve("nosuch://me:hunter2@host/db", port=port)


def addresses_listened_on(port):
    """Local addresses in the kernel's hexadecimal; state 0A is LISTEN."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with Path(table).open() as lines:
            for line in list(lines)[1:]:
                local, state = line.split()[1], line.split()[3]
                address, number = local.split(":")
                if state == "0A" and int(number, 16) == port:
                    found.add(address)
    return found


def _wait_until_closed(port):
    until = time.monotonic() + 10
    while addresses_listened_on(port):
        assert time.monotonic() < until, "the server is still there"
        time.sleep(0.1)
