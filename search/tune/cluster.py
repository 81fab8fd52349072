"""The Ray cluster a search runs on: started here or joined."""

import gc
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import parameter
from ray._private import worker as ray_worker
from ray._private.node import Node
from ray._raylet import Config  # type: ignore[attr-defined]

from search.tune import worker_entry
from search.tune.environment import ENVIRONMENT, worker_environment
from search.tune.nursery import Nursery
from trainable.cpus import usable_cpus
from trainable.errors import OutageError, UserError

logger = logging.getLogger(__name__)

# A socket's path has 107 bytes at most, of which Ray's session and the socket's name take up to 64.
LONGEST_FOLDER = 107 - 64
SHORT_FOLDER = Path("/tmp/ray")  # Ray's own choice where no TMPDIR says otherwise
ACTORS = "search.tune.worker"  # which loads Tune: a worker that is there does so before it is asked
TOKEN_MODE = "RAY_AUTH_MODE"
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def check_address(address: str | None) -> None:
    """Raise UserError for an address at which no search can be run, before anything waits for it; OutageError for no answer."""
    if address is None or address == "auto":
        return
    if address.startswith("ray://"):
        raise UserError(
            "--address: a search cannot be driven through a Ray client; run it on the head node with `auto`"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise UserError(f"--address: got {address!r}, must be auto or host:port")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise OutageError(f"--address: nothing answers at {address!r} ({error.strerror or error})") from error


@contextmanager
def cluster(
    *,
    address: str | None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    ahead: Nursery | None = None,
) -> Iterator[None]:
    """A running Ray for the block: the cluster at ``address``, or one of this machine alone, its workers forked from ``ahead``.

    Raises OutageError where there is none now, UserError where this machine's cannot be.
    """
    os.environ.update(ENVIRONMENT)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if ahead is None:
        options |= {"runtime_env": {"env_vars": worker_environment()}}
    if address is None:
        options |= {"num_cpus": num_cpus or usable_cpus(), "num_gpus": num_gpus, "_temp_dir": _temporary_folder()}
        options |= {"_system_config": {"preload_python_modules": [ACTORS]}}
    _use_token(address)
    with _no_raw_logs():
        with _bare_ray() if address is None else nullcontext(), _forked_workers(ahead):
            _start(address or "local", options=options, is_joined=address is not None)
        try:
            yield
        finally:
            _shut_down()


def _shut_down() -> None:
    """Shut Ray down while no thread collects garbage: Ray ends the process where one frees an object of Ray's just then."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _bare_ray() -> Iterator[None]:
    """Inside, Ray starts without what a search on one machine has no use for: dashboard, autoscaler, sender of logs.

    Each of them is a process that takes half a second of a core, and for which Ray waits.
    """
    parameters, start_api_server = parameter.RayParams, Node.start_api_server
    parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False)
    Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        parameter.RayParams, Node.start_api_server = parameters, start_api_server


@contextmanager
def _forked_workers(ahead: Nursery | None) -> Iterator[None]:
    """Inside, the Ray that starts will begin its workers with :mod:`search.tune.worker_entry`."""
    if ahead is None:
        yield
        return
    parameters = parameter.RayParams
    program = str(Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py")
    asked = {"program": program, "environment": dict(ahead.environment), "nursery": ahead.address}
    parameter.RayParams = partial(parameters, worker_path=worker_entry.__file__)
    os.environ[worker_entry.VARIABLE] = json.dumps(asked)
    try:
        yield
    finally:
        parameter.RayParams = parameters
        del os.environ[worker_entry.VARIABLE]


def _start(address: str, *, options: dict[str, Any], is_joined: bool) -> None:
    try:
        with _quiet_library() if is_joined else nullcontext():
            ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        is_outage = is_joined or isinstance(error, ConnectionError | RuntimeError)
        raise (OutageError if is_outage else UserError)(
            f"{_not_begun(address, is_joined=is_joined)} ({reason})"
        ) from error


def _temporary_folder() -> str | None:
    """Where Ray keeps its files: as RAY_TMPDIR says, else a folder short enough for its sockets. Raises UserError."""
    asked = os.environ.get("RAY_TMPDIR")
    if asked and len(os.fsencode(asked)) > LONGEST_FOLDER:
        raise UserError(
            f"{_not_begun('local', is_joined=False)} (RAY_TMPDIR has {len(os.fsencode(asked))} bytes, at most {LONGEST_FOLDER} "
            "leave room for sockets)"
        )
    usual = Path(os.environ.get("TMPDIR") or tempfile.gettempdir(), "ray")
    return asked or (str(SHORT_FOLDER) if len(os.fsencode(usual)) > LONGEST_FOLDER else None)


def _use_token(address: str | None) -> None:
    """Let a protected cluster be joined by the token there is; a local one has one of its own where there is none.

    Ray itself takes no token for an address that is given, and writes one into the home for a cluster of a single run.
    """
    if TOKEN_MODE in os.environ:
        return
    has_token = any(os.environ.get(name) for name in TOKENS) or (Path.home() / ".ray/auth_token").is_file()
    if address is None and not has_token:
        os.environ[TOKENS[0]] = secrets.token_hex(32)
    if address is None or has_token:
        os.environ[TOKEN_MODE] = "token" if address is None or _asks_for_token(address) else "disabled"
        Config.initialize("")  # which has read the environment already


def _asks_for_token(address: str) -> bool:
    """Whether a cluster is protected. One that is not must not be joined with a token: its workers would have none for us."""
    code = (
        "import sys; from ray._raylet import GcsClient; from ray._private.services import canonicalize_bootstrap_address; "
        "GcsClient(address=canonicalize_bootstrap_address(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, address],
        env=os.environ | {TOKEN_MODE: "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        try:
            return any("Unauthenticated" in line for line in process.stderr)  # else it ends, by itself
        finally:
            process.kill()


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Inside, what Ray's C++ part writes past Python, a line a second while a cluster does not answer, goes nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _no_raw_logs() -> Iterator[None]:
    """Inside, the lines of Ray's own logs that it prints where a node dies, past its loggers, go to ours.

    Tune's own, with the traceback of every leg whose worker was lost, are kept from the terminal: the ledger has them.
    """

    def log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        logger.debug("%s", data.get("lines"))

    before, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, log
    tune_logger = logging.getLogger("ray.tune")
    level = tune_logger.level
    tune_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        tune_logger.setLevel(level)
        ray_worker.print_to_stdstream = before


def _not_begun(address: str, *, is_joined: bool) -> str:
    """What to say where there is no Ray."""
    if is_joined:
        has_token = TOKEN_MODE in os.environ and os.environ[TOKEN_MODE] == "token"
        advice = (
            "the token here may be another than its head's"
            if has_token
            else "a protected one asks for its head's token"
        )
        return f"--address: cannot join Ray at {address!r}; {advice}, in ~/.ray/auth_token or RAY_AUTH_TOKEN"
    return "Ray cannot be started on this machine; RAY_TMPDIR names a short folder for its files"


def total_resources() -> dict[str, float]:
    """CPUs and GPUs of the whole cluster now."""
    resources = ray.cluster_resources()
    return {"cpu": resources.get("CPU", 0.0), "gpu": resources.get("GPU", 0.0)}
