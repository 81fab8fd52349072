"""The environment that Ray, Tune and workers are given."""

import os
from pathlib import Path

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
# What Tune lets its actors have of the driver's environment. Here every worker has it: an actor that asked for an environment of
# its own would find no worker that is there already.
PASSED_ON = (
    "RAY_CHDIR_TO_TRIAL_DIR",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)
# One OpenMP thread a worker until it is told otherwise: two trials with two threads each fight over two cores.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def worker_environment() -> dict[str, str]:
    """What the environment of a worker holds besides what Ray gives it."""
    environment = {**os.environ, **ENVIRONMENT}
    passed_on = {name: environment[name] for name in PASSED_ON if name in environment}
    return WORKER_ENVIRONMENT | passed_on | _import_path() | permission()


def _import_path() -> dict[str, str]:
    """The project's own folder, when it runs from a checkout, and the command's, where a user's own modules lie."""
    root = Path(__file__).resolve().parents[2]
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))}
