"""Where a trial runs: its share of CPUs and GPUs, how many run at once, what a worker is given."""

import math
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.engine.conductor import Conductor, Leg
from search.ledger.files import checkpoint_folder
from search.ledger.ledger import Ledger
from search.space.spec import SearchSpec
from search.tune import worker
from search.tune.cluster import total_resources
from trainable.errors import UserError

INTERRUPTED = "interrupted"


@contextmanager
def interruptible(conductor: Conductor) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the search after the epochs at work; the second Ctrl-C at once."""

    def stop(signum: int, frame: object) -> None:
        conductor.stopping = INTERRUPTED
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settings_of(leg: Leg, *, trial: dict[str, Any], folder: Path, place: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker needs for a leg of a ``trial`` whose checkpoints lie below ``folder``."""
    return worker.leg_settings(
        trial=trial,
        folder=checkpoint_folder(folder.resolve(), leg.number),
        start=leg.start,
        threads=place["threads"],
        fingerprints=place["fingerprints"],
    )


def check_local_resources(spec: SearchSpec) -> None:
    """Raise UserError where one trial asks for more than this machine has."""
    for name, available in worker.local_resources().items():
        asked = getattr(spec.resources, name)
        if asked != "auto" and asked > available:
            without = "; `--set resources.gpu=0` runs without" if name == "gpu" else ""
            raise UserError(f"resources.{name}: {asked:g} asked for a trial, this machine has {available:g}{without}")


def concurrency(spec: SearchSpec, *, available: Mapping[str, float], gpu: float, can_grow: bool) -> int:
    """How many trials run at once: as many as CPUs and GPUs hold, at most ``resources.concurrency``.

    On a cluster that can grow one more is asked for, or all that the file allows, since a request that waits is what
    brings a new node.
    """
    wanted = spec.resources.concurrency
    if can_grow and wanted is not None:
        return wanted
    counts = [math.floor(available["cpu"] / spec.resources.cpu)]
    if gpu:
        counts.append(math.floor(1 / gpu) * int(available["gpu"]) if gpu < 1 else math.floor(available["gpu"] / gpu))
    if wanted is not None:
        counts.append(wanted)
    return max(1, min(counts) + can_grow)


def worker_place(spec: SearchSpec, *, ledger: Ledger) -> dict[str, Any]:
    """What a worker is given: ``cpu`` and ``gpu``, the ``threads`` that torch may use, the ``fingerprints`` of its images."""
    cpu = spec.resources.cpu
    threads = max(1, math.floor(cpu))
    return {"cpu": cpu, "gpu": _gpu_share(spec), "threads": threads, "fingerprints": ledger.fingerprints}


def _gpu_share(spec: SearchSpec) -> float:
    """One trial's share of a GPU; ``auto`` is a whole one where the cluster has any now."""
    if spec.resources.gpu == "auto":
        return 1.0 if total_resources()["gpu"] else 0.0
    return spec.resources.gpu
