"""How many CPUs this process may use, which on a shared machine are fewer than there are."""

import math
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

# What batch systems grant a job on this node (Slurm, Grid Engine, PBS, LSF), whether or not they bind it to those CPUs.
GRANTED = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS", "PBS_NCPUS", "LSB_DJOB_NUMPROC")


def usable_cpus(*, environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """The least of what affinity, cgroups and the batch system allow, whole CPUs, at least 1.

    ``root`` is the folder with `proc` and `sys`.
    """
    granted = (environment.get(name, "") for name in GRANTED)
    limits = [float(text) for text in granted if text.isdecimal() and int(text)]
    return max(1, math.floor(min([_bound_to(), *limits, *_quotas(root)])))


def _bound_to() -> int:
    """CPUs that this process may run on; all there are on a system that does not bind processes (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let libraries that are loaded from now on have no more threads than CPUs may be used, unless they are told otherwise.

    They look at affinity at best, never at a quota.
    """
    usable = usable_cpus(environment=environment)
    if usable < (os.cpu_count() or 1):
        environment.setdefault("OMP_NUM_THREADS", str(usable))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs' time a second that each cgroup of this process, and each above it, allows, of version 1 or 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if number == "0":
            for folder in _upwards(root / "sys/fs/cgroup", inner):
                yield from _quota(*_text(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup" / controllers, inner):
                yield from _quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, inner: str) -> Iterator[Path]:
    """The folder of a cgroup and those above it; in a container, which may not see its own, the mount is it."""
    folder = mount / inner.strip("/")
    yield from (place for place in (folder, *folder.parents) if place.is_relative_to(mount))


def _quota(quota: str = "", period: str = "") -> Iterator[float]:
    """None where there is no number: `max` or -1 stand for no limit."""
    if quota.strip().isdecimal() and period.strip().isdecimal():
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
