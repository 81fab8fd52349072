"""The Ray cluster a search runs on: started here or joined."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from trainable.atomic import make_private_folder
from trainable.cpus import usable_cpus
from trainable.errors import OutageError, UserError
from trainable.loader.own_code import permission

# Set before Ray is initialised. Tune: no second writer of logs, no handler of its own for Ctrl-C, every result at
# once, results without a metric (a trial's end), no proposal ahead of a free worker, relative paths as the user meant
# them. Ray: no usage report, no GPU seen by a trial that asked for none.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
# One OpenMP thread a worker until it is told otherwise: two trials with two threads each fight over two cores.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


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
def cluster(*, address: str | None, num_cpus: int | None = None, num_gpus: int | None = None) -> Iterator[None]:
    """A running Ray for the block: the cluster at ``address``, or one of this machine alone.

    Raises OutageError where there is none now, UserError where this machine's cannot be.
    """
    os.environ.update(ENVIRONMENT)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
        "runtime_env": {"env_vars": WORKER_ENVIRONMENT | _import_path() | permission()},
    }
    if address is None:
        _hide_token()
        options |= {
            "num_cpus": num_cpus or usable_cpus(),
            "num_gpus": num_gpus,
            "_temp_dir": os.environ.get("RAY_TMPDIR"),
        }
    try:
        ray.init(address=address or "local", **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        is_outage = address is not None or isinstance(error, ConnectionError | RuntimeError)
        raise (OutageError if is_outage else UserError)(f"{_not_begun(address)} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _hide_token() -> None:
    """Close the folder of Ray's token: who can read it runs code here, and Ray writes it with the rights of any file."""
    folder = Path.home() / ".ray"
    with suppress(OSError):  # a home that nobody writes to, in which Ray finds or names its own way
        make_private_folder(folder)
        folder.chmod(0o700)


def _not_begun(address: str | None) -> str:
    """What to say where there is no Ray."""
    if address is not None:
        return f"--address: cannot join Ray at {address!r}"
    return "Ray cannot be started on this machine; RAY_TMPDIR names a short folder for its files"


def total_resources() -> dict[str, float]:
    """CPUs and GPUs of the whole cluster now."""
    resources = ray.cluster_resources()
    return {"cpu": resources.get("CPU", 0.0), "gpu": resources.get("GPU", 0.0)}


def _import_path() -> dict[str, str]:
    """The project's own folder, when it runs from a checkout, and the command's, where a user's own modules lie."""
    root = Path(__file__).resolve().parents[2]
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))}
