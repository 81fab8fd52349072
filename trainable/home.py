"""The user's home: `~` in what he wrote, and what stands for it where there is none."""

import os
import re
import stat
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path

_BEGINS_AT_HOME = re.compile(r"(--[\w-]+=)?(sqlite:///)?(~.*)", re.DOTALL)


def expand_home(text: str) -> str:
    """A path, an option with one, or the address of an SQLite file, with the home for `~` where it begins with that."""
    parts = _BEGINS_AT_HOME.fullmatch(text)
    if parts is None:
        return text
    option, scheme, path = parts.groups(default="")
    return option + scheme + os.path.expanduser(path)  # noqa: PTH111 - Path's fails where there is no such home


def expand_words(words: Sequence[str]) -> list[str]:
    """The words of a command, each with the home for `~`: a shell leaves that to us in ``--out=~/x``."""
    return [expand_home(word) for word in words]


def ensure_home(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let a user that has no home, as a random one in a container, have one among the temporary files.

    Ray cannot even be imported without. Called again, it gives the same folder, so that what is kept there is found.
    """
    if os.path.expanduser("~") != "~":  # noqa: PTH111
        return
    folder = Path(tempfile.gettempdir(), f"home-of-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    environment["HOME"] = str(folder) if is_ours else tempfile.mkdtemp(prefix=f"{folder.name}-")
