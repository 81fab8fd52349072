"""Follows files on this machine's disks and says when something changed (the door of watchfiles)."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from watchfiles import DefaultFilter, watch

from trainable.data.readers.storage import is_address

MOUNTS = Path("/proc/self/mounts")
NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf"}
)
LOOK_SECONDS = 1.0  # between two looks whether a path is still the same
JOIN_SECONDS = 1.0


def can_follow(path: str) -> bool:
    """Whether the kernel tells of changes there: not behind an address, not where other machines write too."""
    if is_address(path):
        return False
    kind = file_system(Path(path).resolve(), mounts=MOUNTS.read_text()) if MOUNTS.exists() else ""
    return kind not in NETWORK and not kind.startswith("fuse")


def file_system(path: Path, *, mounts: str) -> str:
    """The kind of the file system that an absolute path lies on, by the kernel's table of mounts."""
    entries = (line.split(" ")[1:3] for line in mounts.splitlines())
    kinds = {
        Path(place.replace("\\040", " ")): kind for place, kind in entries
    }  # of two at one place the later is seen
    return next((kinds[place] for place in (path, *path.parents) if place in kinds), "")


@contextmanager
def follow_changes(
    paths: Iterable[Path], *, ignored: Sequence[Path], poll_seconds: float, changed: Callable[[], object]
) -> Iterator[None]:
    """Inside, ``changed`` is called from other threads soon after a file, or something in a folder, has changed.

    A path that vanishes is waited for. Where the kernel cannot follow (more folders than fs.inotify.max_user_watches)
    ``changed`` is called every ``poll_seconds``. Nothing is told of what is in an ``ignored`` folder.
    """
    stop = threading.Event()
    wanted = DefaultFilter(ignore_paths=[path.absolute() for path in ignored])
    threads = [
        threading.Thread(target=_follow, args=(path.absolute(), wanted, poll_seconds, changed, stop), daemon=True)
        for path in paths
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)


def _follow(
    path: Path, wanted: DefaultFilter, poll_seconds: float, changed: Callable[[], object], stop: threading.Event
) -> None:
    seen = _identity(path)
    while not stop.is_set():
        try:
            _until_replaced(path, seen, wanted, changed, stop)
        except (OSError, RuntimeError):  # there is no folder yet, or it has too many folders
            stop.wait(LOOK_SECONDS if seen is None else poll_seconds)
            if seen is not None:
                changed()
        before, seen = seen, _identity(path)
        if seen != before:
            changed()


def _until_replaced(
    path: Path,
    seen: tuple[int, int] | None,
    wanted: DefaultFilter,
    changed: Callable[[], object],
    stop: threading.Event,
) -> None:
    """Follow a path while it is the one that was seen: the kernel follows what lies there, not its name."""
    is_folder = path.is_dir()
    files = {path, path.resolve()}  # a link, and what it leads to
    batches = watch(
        *({path} if is_folder else {file.parent for file in files}),
        watch_filter=wanted if is_folder else lambda _, name: Path(name) in files,
        recursive=is_folder,
        rust_timeout=round(1000 * LOOK_SECONDS),
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    for batch in batches:
        if _identity(path) != seen:
            return
        if batch:
            changed()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
