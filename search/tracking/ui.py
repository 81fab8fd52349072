"""MLflow's pages on this machine alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import typer

from search.tracking.uri import artifact_folder, check_uri, is_server, page_address
from search.tracking.views import experiment_link, links_of_tags
from trainable.errors import OutageError, UserError
from trainable.masking import masked_address

HOST = "127.0.0.1"
START_SECONDS = 120.0  # a new database is made first
STOP_SECONDS = 10.0
EXPERIMENTS_SHOWN = 20
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes in place of 10
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def serve(uri: str, *, port: int, tell: Callable[[str], object] = typer.echo) -> None:
    """Serve the pages until Ctrl-C or SIGTERM, and tell their links; of a server only the link is told.

    Raises UserError for an address that cannot be served and a port in use, OutageError for a server that does not start.
    """
    uri = check_uri(uri)
    if is_server(uri):
        tell(f"{masked_address(uri)} is a server already: {page_address(uri)}/?workflowType=machine_learning")
        return
    _check_port(port)
    page = page_address(uri, port=port)
    with _stop_on_sigterm(), _server(uri, port=port) as process, suppress(KeyboardInterrupt):
        _wait_until_healthy(process, page=page, uri=uri)
        tell(f"MLflow shows {masked_address(uri)}, Ctrl-C ends it:")
        for line in _link_lines(page):
            tell(f"  {line}")
        if process.wait():
            raise OutageError(f"the MLflow server ended with code {process.returncode}")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"--port: {port} on {HOST} cannot be used ({error.strerror}); give another --port"
            ) from error


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _server(uri: str, *, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The server with all it starts, in a process group of its own that ends with the block.

    The address goes by the environment: a password in it would show in the list of processes.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    artifacts = artifact_folder(uri)
    if artifacts is not None:
        command += ["--artifacts-destination", artifacts]
    environment = {**os.environ, **ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", *, page: str, uri: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urlopen(f"{page}/health", timeout=5):
            return
        time.sleep(0.2)
    raise OutageError(
        f"the MLflow server did not start on {masked_address(uri)}; `mlflow server --backend-store-uri …` says why"
    )


def _link_lines(page: str) -> list[str]:
    """The links of every experiment, those of its saved views where it has any."""
    lines = []
    for experiment in _experiments(page):
        number, name = experiment["experiment_id"], experiment["name"]
        tags = {tag["key"]: tag["value"] for tag in experiment.get("tags", [])}
        saved = links_of_tags(page, number, tags=tags)
        lines.append(f"{name}: {experiment_link(page, number)}")
        lines += [f"  {view}: {link}" for view, link in saved.items()]
    return lines


def _experiments(page: str) -> list[dict[str, Any]]:
    body = json.dumps({"max_results": EXPERIMENTS_SHOWN}).encode()
    request = Request(
        f"{page}/api/2.0/mlflow/experiments/search", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urlopen(request, timeout=10) as answer:
            experiments: list[dict[str, Any]] = json.load(answer).get("experiments", [])
    except (URLError, ValueError):
        return []
    return experiments
