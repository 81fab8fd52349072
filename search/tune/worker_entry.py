"""What Ray starts as a worker on this machine: it has the nursery fork one, and ends when that ends.

Where no nursery answers it becomes the worker itself. It is run as a script and imports next to nothing, since every worker
waits for it.
"""

import json
import os
import socket
import sys
from typing import Any

VARIABLE = (
    "SEARCH_WORKER_ENTRY"  # as JSON: `program`, Ray's own; `environment`, what it has besides; `nursery`, a socket
)


def main() -> None:
    """Stand for a forked worker, or become one."""
    asked = json.loads(os.environ.pop(VARIABLE))
    words = [asked["program"], *sys.argv[1:]]
    environment = {**os.environ, **asked["environment"]}
    if not _stood_for_a_fork(
        asked["nursery"],
        worker={"words": words, "environment": environment, "directory": os.getcwd()},  # noqa: PTH109 # pathlib takes time to load
    ):
        os.execve(sys.executable, [sys.executable, *words], environment)


def _stood_for_a_fork(address: str, *, worker: dict[str, Any]) -> bool:
    """Wait for the end of the worker that the nursery forks; False where it forks none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            connection.sendall(json.dumps(worker).encode() + b"\n")
            is_forked = bool(connection.recv(1))
            while is_forked and connection.recv(1):
                pass
            return is_forked
    except OSError:
        return False


if __name__ == "__main__":
    main()
