"""Where a trial runs: its share of CPUs and GPUs, how many run at once, what a worker is given."""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.engine.packing import Packed, kind_text, packed
from search.ledger.trials import Trial
from search.space.values import Value
from search.tune import machine
from search.tune.cluster import total_resources
from trainable.data.image_guard import Fingerprints
from trainable.errors import UserError

if TYPE_CHECKING:
    from search.engine.conductor import Conductor, Leg
    from search.ledger.ledger import Ledger
    from search.space.spec import SearchSpec

INTERRUPTED = "interrupted"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a worker is given: shares of CPUs and GPUs, the CPU threads that torch may use, the images it is held to.

    ``fingerprints`` are those of the search's data sets by the field of ``data`` that names them; ``directory`` is the driver's
    working directory, from which relative paths count; ``depths`` are those that its trials may be frozen to; ``packed``
    says that the share of a GPU is by what was measured, so that its epochs tell it.
    """

    cpu: float
    gpu: float
    threads: int
    fingerprints: Fingerprints
    directory: str
    depths: Sequence[Value] = ()
    packed: bool = False


@contextmanager
def interruptible(conductor: "Conductor") -> Iterator[None]:
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


def check_local_resources(spec: "SearchSpec") -> None:
    """Raise UserError where one trial asks for more than this machine has."""
    for line in local_shortages(spec):
        raise UserError(line)


def local_shortages(spec: "SearchSpec") -> list[str]:
    """One line for each of what a trial asks for more than this machine has, and so can never get on it."""
    lines = []
    for name, available in machine.local_resources().items():
        asked = getattr(spec.resources, name)
        if asked != "auto" and asked > available:
            cure = "runs without" if name == "gpu" and not available else "fits"
            lines.append(
                f"resources.{name}: {asked:g} asked for a trial, this machine has {available:g}; "
                f"`--set resources.{name}={available:g}` {cure}"
            )
    return lines


def concurrency(spec: "SearchSpec", *, available: Mapping[str, float], gpu: float, can_grow: bool) -> int:
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


def make_places(spec: "SearchSpec", *, ledger: "Ledger", is_joined: bool) -> Callable[[], Place]:
    """Make a call that gives the place of work that is handed out now, from the ``resources`` of a search."""
    cpu, gpu = spec.resources.cpu, gpu_share(spec, is_joined=is_joined)
    fingerprints, directory = ledger.notes.data.fingerprints, str(Path.cwd())
    return lambda: Place(
        cpu=cpu,
        gpu=gpu(),
        threads=max(1, math.floor(cpu)),
        fingerprints=fingerprints,
        directory=directory,
        depths=spec.depths,
    )


def gpu_share(spec: "SearchSpec", *, is_joined: bool) -> Callable[[], float]:
    """Make a call that gives one trial's share of a GPU; ``auto`` is a whole one where the cluster has any now.

    One that has had a GPU is asked for it again, which may bring it back. A cluster that was joined and has room for no trial
    yet is asked for a GPU too: were it asked for CPUs, it might start machines with GPUs for them, which would idle.
    """
    asked = spec.resources.gpu
    had_one = False

    def share() -> float:
        nonlocal had_one
        if asked != "auto":
            return asked
        available = total_resources()
        had_one = had_one or available["gpu"] > 0
        has_no_room = is_joined and available["cpu"] < spec.resources.cpu
        return 1.0 if had_one or has_no_room else 0.0

    return share


class Packing:
    """The places of a search's legs: with ``resources.gpu: auto`` several share a GPU, by what their like have taken of one.

    ``place`` gives that of one leg alone, ``trials`` those that have been measured.
    """

    def __init__(
        self, spec: "SearchSpec", *, place: Callable[[], Place], trials: Callable[[], Sequence[Trial]]
    ) -> None:
        self._spec = spec
        self._place = place
        self._trials = trials
        self._newest = 1.0
        self._told: dict[str, int] = {}

    def of(self, leg: "Leg") -> Place:
        """What this leg is given now."""
        place = self._place()
        if self._spec.resources.gpu != "auto" or not place.gpu:
            return place
        params = {**leg.params, **leg.overrides}
        decided = packed(self._trials(), params=params, most=self._most())
        self._tell(kind_text(params), decided)
        self._newest = decided.share
        return replace(place, gpu=decided.share, packed=True)

    def at_once(self, *, can_grow: bool) -> int:
        """How many legs may be at work: where they share GPUs as many as fit if all are like the newest."""
        gpu = self._place().gpu
        gpu = min(gpu, self._newest) if self._spec.resources.gpu == "auto" else gpu
        return concurrency(self._spec, available=total_resources(), gpu=gpu, can_grow=can_grow)

    def _most(self) -> int:
        """How many there can be on a GPU: no more than CPUs allow, nor than are at work at once, for each of the GPUs."""
        available = total_resources()
        gpus = max(1.0, available["gpu"])
        most = math.floor(available["cpu"] / self._spec.resources.cpu / gpus)
        return (
            most
            if self._spec.resources.concurrency is None
            else min(most, math.ceil(self._spec.resources.concurrency / gpus))
        )

    def _tell(self, kind: str, decided: Packed) -> None:
        """Say when as many of a kind share a GPU as did not before."""
        if decided.together > self._told.get(kind, 1):
            self._told[kind] = decided.together
            logger.warning(
                "packing: %d trials of %s share a GPU, %.1f GB each; resources.gpu decides otherwise",
                decided.together,
                kind or "this search",
                (decided.num_bytes or 0.0) / 1e9,
            )
