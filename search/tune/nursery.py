"""A process that has loaded what workers compute with, from which Ray's workers on this machine are forked.

A worker that begins with nothing spends seconds loading torch and timm, each one again. This one loads them once, while the
driver reads the search and Ray starts; a fork of it is ready at once and shares its memory. It never touches a GPU, Ray or an
image, and has one thread of Python's, so that a fork of it is whole.
"""

import gc
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType

from search.tune.environment import worker_environment
from search.tune.machine import may_have_gpu

LOADED = ("search.tune.tasks", "search.tune.leg")  # which load no Ray: a fork of one that has it never answers
FOLDER = "/tmp"  # a socket's path is short, TMPDIR may not be
READY = b"1"


@dataclass(frozen=True)
class Nursery:
    """Where workers are forked: the path of its socket, and the environment that they have besides what Ray gives them."""

    address: str
    environment: Mapping[str, str]


@contextmanager
def workers_ahead(*, address: str | None) -> Iterator[Nursery | None]:
    """Where this machine's workers are forked, for the block; it loads what they need while Ray is not yet started.

    None for a cluster that is joined, whose workers are where their nodes are, and where there may be a GPU, which is not to be
    touched by a process that others are forked from.
    """
    if address is not None or may_have_gpu():
        yield None
        return
    with nursery(worker_environment()) as ahead:
        yield ahead


@contextmanager
def nursery(environment: Mapping[str, str]) -> Iterator[Nursery]:
    """A nursery for the block, which loads beside whatever the block does; its workers have this ``environment`` too."""
    folder = tempfile.mkdtemp(prefix="nursery-", dir=FOLDER)  # open to nobody else
    address = str(Path(folder, "socket"))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(1024)
            process = _start(listener, environment=environment)
        with process:
            try:
                yield Nursery(address, environment)
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(listener: socket.socket, *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process. It ends when this one does, which closes the pipe, and hears no Ctrl-C of the terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
        start_new_session=True,
    )


def serve(listener: socket.socket) -> None:
    """Load, then fork a worker for every connection until standard input ends; returns in every fork, ready to be the worker."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as in every process that Ray starts
    gc.disable()  # what is loaded stays: looking at it again and again took a fifth of the time
    for module in LOADED:
        import_module(module)
    gc.freeze()  # nor does a worker look at it, whose pages would no longer be shared
    gc.enable()
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:  # the driver was killed
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
            os._exit(0)
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                _become_worker(connection)
                return


def _reap(signum: int, frame: FrameType | None) -> None:
    """Take note of every worker that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_worker(connection: socket.socket) -> None:
    """Take over the words, environment and folder of the process at the other end, which waits for this one's end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ray ends a worker with its process group
    with connection.makefile("rb") as file:
        asked = json.loads(file.readline())
    connection.sendall(READY)
    os.dup(connection.fileno())  # open until this process ends
    sys.argv = asked["words"]
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    random.seed()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
