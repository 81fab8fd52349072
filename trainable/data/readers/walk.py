"""Walks through folders: every file once, what is no image counted by reason."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

from trainable.data.readers.findings import Finding, counted
from trainable.errors import OutageError, UserError

# Folders that systems and programs leave behind, in lower case: their files are nobody's images. Hidden ones are, too.
FOREIGN_FOLDERS = {
    "__macosx": "__MACOSX",
    "@eadir": "@eaDir",
    "lost+found": "lost+found",
    "#recycle": "#recycle",
    "@recycle": "@Recycle",
    "$recycle.bin": "$RECYCLE.BIN",
    "system volume information": "System Volume Information",
    "thumbnails": "thumbnails",
    "thumbs": "thumbnails",
    "__pycache__": "__pycache__",
}
FOREIGN_FILES = {"thumbs.db": "Thumbs.db", "desktop.ini": "desktop.ini", ".ds_store": ".DS_Store"}
_FOREIGN = {*FOREIGN_FOLDERS.values(), *FOREIGN_FILES.values(), "._*", "hidden"}

# Of arrays, and of every format that the decoder takes.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".npy",
    ".jfif",
    ".jpe",
    ".apng",
    ".dib",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".pfm",
    ".jp2",
    ".j2k",
    ".j2c",
    ".jpc",
    ".jpf",
    ".jpx",
    ".tga",
    ".icb",
    ".vda",
    ".vst",
    ".pcx",
    ".sgi",
    ".bw",
    ".rgb",
    ".rgba",
    ".avif",
    ".avifs",
)
COMMON = 9  # of them, which a message names
HEIC_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")  # with the extra `heic`
# Images all the same, so that a folder of them alone is a class that would be lost.
UNREAD_SUFFIXES = (
    *HEIC_SUFFIXES,
    ".jxl",
    ".psd",
    ".xcf",
    ".svg",
    ".exr",
    ".hdr",
    ".dcm",
    ".nii",
    ".gz",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
)


@dataclass(frozen=True)
class Tally:
    """Files that are left out, counted by reason: a suffix, the place they lie in, what they are; an example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, file: str) -> None:
        """Count a file; a reason that holds what breaks a line or is no text is written with escapes."""
        reason = reason if reason.isprintable() else ascii(reason)[1:-1]
        self.counts[reason] += 1
        self.examples.setdefault(reason, file)

    def finding(self, *, root: str) -> tuple[Finding, ...]:
        """What is said of the files that are left out, an example of each reason by its path from ``root``,
        those of foreign files last; nothing of none.
        """
        if not self.counts:
            return ()
        reasons = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        by_interest = sorted((reason for reason, _ in reasons), key=lambda reason: reason in _FOREIGN)
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons)
        number = sum(self.counts.values())
        examples = tuple(repr(os.path.relpath(self.examples[reason], root)) for reason in by_interest)
        cure = "install pillow-heif to read them" if {*HEIC_SUFFIXES} & self.counts.keys() else ""
        text = f"{counted(number, 'file')} left out: {listed}"
        return (Finding(kind="left_out", count=number, text=text, examples=examples, cure=cure),)


@dataclass(frozen=True)
class Walk:
    """One look at a data set's folders: what was ``visited`` is not visited again, whatever links lead to it."""

    tally: Tally = field(default_factory=Tally)
    visited: set[str] = field(default_factory=set)

    def enter(self, folder: str) -> bool:
        """Whether a folder is visited for the first time; told by its real path, since disks of a network may share inodes."""
        return self._is_first(os.path.realpath(folder))

    def images(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """The path of this folder and of each below it, with the names of its images; both follow from what is there alone.

        Links are followed once, those to folders after the folders themselves. Raises UserError for a folder that may not
        be listed and OutageError for one that cannot be now.
        """
        if self.enter(folder):
            yield from self.inside(folder)

    def inside(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """:meth:`images` of a folder that may have been visited; those below it are not again."""
        waiting = [(folder, os.path.realpath(folder))]  # a list of its own: a tree may be deeper than calls can be
        while waiting:
            place, real = waiting.pop()
            files, folders = self._entries(place)
            yield place, files
            inner = [(path, os.path.realpath(path) if is_link else f"{real}/{name}") for is_link, name, path in folders]
            new = [(path, real_path) for path, real_path in inner if self._is_first(real_path)]
            waiting += reversed(new)

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder that may hold images, sorted, links last."""
        return [name for _, name, _ in self._entries(folder, is_counted=False)[1]]

    def has_images(self, folder: str) -> bool:
        """Whether images lie in a folder itself."""
        return bool(self._entries(folder, is_counted=False)[0])

    def _is_first(self, real_path: str) -> bool:
        is_first = real_path not in self.visited
        self.visited.add(real_path)
        return is_first

    def _entries(self, folder: str, *, is_counted: bool = True) -> tuple[list[str], list[tuple[bool, str, str]]]:
        """Names of a folder's images; of the folders to go on with whether each is a link, its name, its path, links last."""
        images: list[str] = []
        folders: list[tuple[bool, str, str]] = []
        others: list[os.DirEntry[str]] = []
        for entry in _listed(folder):
            name = entry.name  # most are plain image files: a million of them take seconds
            if is_image(name) and entry.is_file(follow_symlinks=False):
                images.append(name)
            else:
                others.append(entry)
        for entry in sorted(others, key=lambda entry: entry.name):
            reason = _reason(entry)
            if reason is not None:
                if is_counted:
                    self._count(entry, reason=reason)
            elif _is_folder(entry):
                folders.append((entry.is_symlink(), entry.name, entry.path))
            else:
                images.append(entry.name)
        images.sort()
        return images, sorted(folders)

    def _count(self, entry: os.DirEntry[str], *, reason: str) -> None:
        if not _is_folder(entry):
            self.tally.add(reason, entry.path)
        elif not entry.is_symlink():
            for parent, _, names in os.walk(entry.path):
                for name in names:
                    self.tally.add(reason, os.path.join(parent, name))  # noqa: PTH118


@cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes of what can be decoded here."""
    return SUFFIXES + (HEIC_SUFFIXES if find_spec("pillow_heif") else ())


def known_suffixes() -> str:
    """The end of a message that says what is taken for an image."""
    return f"images end in {', '.join(SUFFIXES[:COMMON])} and {len(image_suffixes()) - COMMON} more (docs/data.md)"


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name[name.rfind(".") :].lower() in _suffixes() and name[0] != "."


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(image_suffixes())


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise UserError(f"data.path: the folder {folder!r} may not be listed ({error.strerror})") from error
    except OSError as error:
        raise OutageError(f"data.path: the folder {folder!r} cannot be listed now ({error.strerror})") from error


def _reason(entry: os.DirEntry[str]) -> str | None:
    """Why an entry is left out; None for a folder that may hold images and for an image."""
    name = entry.name.lower()
    if _is_folder(entry):
        return FOREIGN_FOLDERS.get(name) or (entry.name if name.startswith(".") else None)
    if name in FOREIGN_FILES:
        return FOREIGN_FILES[name]
    if name.startswith("."):
        return "._*" if name.startswith("._") else "hidden"
    if not _may_be_read(entry):
        return "no regular file"
    return None if is_image(name) else (PurePosixPath(name).suffix or "no suffix")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads nowhere, which is a bad image; a pipe would never end."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)  # noqa: PTH110
    except OSError:
        return True
