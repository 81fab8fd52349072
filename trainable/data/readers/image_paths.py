"""Tells which files the images of a list are, where the list was made on another machine or by another program."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from trainable.data.readers.findings import Finding
from trainable.data.readers.walk import is_image
from trainable.errors import UserError

MOST_FOLDERS = 64  # below the list's, in which images are looked for
MOST_DROPPED = 12  # leading parts of a path of another machine


class _Reading(NamedTuple):
    """One way to read a list's paths: what it does in words, the folder they then begin in, the file of a name."""

    meaning: str
    place: str
    file: Callable[[str], str]


def find_files(names: Sequence[str], *, folder: str, preferred: str = "") -> tuple[list[str], tuple[Finding, ...]]:
    """The file of every image that a list in ``folder`` names, and how the names had to be read.

    They are absolute or relative to the folder. Where some lead nowhere, all are read in the one other way in which every one
    leads to an image: backslashes as slashes, in one of the folders below, without their first parts, with a suffix, `%20` as
    a blank; else each in whichever folder below holds an image of that name.
    Of several ways the one in the folder called ``preferred`` is taken. Where there is no way the files are those of the names as
    they stand, and what holds for most is said. Raises UserError where there are several.
    """
    as_it_stands = [_joined(folder, name) for name in names]
    missing = [name for name, file in zip(names, as_it_stands, strict=True) if not os.path.isfile(file)]  # noqa: PTH113
    if not missing:
        return as_it_stands, ()
    readings = _readings(missing, folder=folder)
    if not readings:
        return as_it_stands, tuple(_nearly(missing, folder=folder))
    readings = [reading for reading in readings if Path(reading.place).name == preferred] or readings
    if len({tuple(reading.file(name) for name in missing[:MOST_FOLDERS]) for reading in readings}) > 1:
        meanings = " or ".join(reading.meaning for reading in readings)
        raise UserError(
            f"data.path: {missing[0]!r} is no file here, and {len(missing)} names can be read {meanings}; `data.images` says in "
            "which folder they begin"
        )
    reading, ways = readings[0], set(missing)
    finding = Finding(
        kind="list",
        count=len(missing),
        text=f"{len(missing)} of {len(names)} image names were read {reading.meaning}",
        examples=(f"{missing[0]!r} as {reading.file(missing[0])!r}",),
    )
    files = [reading.file(name) if name in ways else file for name, file in zip(names, as_it_stands, strict=True)]
    return files, (finding,)


def _nearly(missing: Sequence[str], *, folder: str) -> Iterator[Finding]:
    """What is said where most of the missing names, the first or the last among them, could be read in one way but for others."""
    for name in dict.fromkeys([missing[0], missing[-1]] if len(missing) > 1 else []):
        try:
            readings = _readings([name], folder=folder)
            if len(readings) != 1:
                continue
            lost = [other for other in missing if not os.path.isfile(readings[0].file(other))]  # noqa: PTH113
        except UserError:  # of several images that it may be
            continue
        if 0 < len(lost) < len(missing) / 2:
            there = f"{len(missing) - len(lost)} of {len(missing)} image names that lead nowhere could be read"
            text = f"{there} {readings[0].meaning}, and {len(lost)} not"
            cure = "take those out of the list, or add their images"
            yield Finding(kind="list", count=len(lost), text=text, examples=tuple(map(repr, lost)), cure=cure)
            return


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118 - a million Path objects take seconds


def _readings(missing: Sequence[str], *, folder: str) -> list[_Reading]:
    """The readings, the first that work of the simplest kind, in which every missing name leads to a file."""
    ways = _ways(missing)
    for change, rewrite in ways:
        for with_suffix in (False, True):
            bases = (
                {place: _Stems(place) for place in _places(folder)} if with_suffix else dict.fromkeys(_places(folder))
            )
            longest = max(rewrite(name).count("/") for name in missing)
            for dropped in range(min(MOST_DROPPED, longest) + 1):
                working = [
                    reading
                    for place, stems in bases.items()
                    for reading in [
                        _reading(place, change, rewrite=rewrite, dropped=dropped, folder=folder, stems=stems)
                    ]
                    if all(os.path.isfile(reading.file(name)) for name in missing)  # noqa: PTH113
                ]
                if working:
                    return working
    spread = (
        _spread(missing, change, rewrite=rewrite, with_suffix=with_suffix, folder=folder)
        for change, rewrite in ways
        for with_suffix in (False, True)
    )
    return [reading for reading in spread if reading is not None][:1]


def _ways(missing: Sequence[str]) -> list[tuple[str, Callable[[str], str]]]:
    """The ways to write the names for this machine, each in words."""
    slashed = any("\\" in name for name in missing)
    ways: list[tuple[str, Callable[[str], str]]] = [("with slashes", _slashed)] if slashed else [("", str)]
    if any("%" in name for name in missing):
        ways.append(("with slashes and `%20` decoded" if slashed else "with `%20` decoded", _decoded))
    return ways


def _spread(
    missing: Sequence[str], change: str, *, rewrite: Callable[[str], str], with_suffix: bool, folder: str
) -> _Reading | None:
    """The reading in which each name is that of one image, in whichever of the folders below it lies."""
    images: dict[str, list[str]] = defaultdict(list)
    for place in _places(folder):
        for stem, names in _images_by_stem(place).items():
            for name in names:
                images[stem if with_suffix else name].append(_joined(place, name))
    places = {name: images.get(rewrite(name).rpartition("/")[2], []) for name in missing}
    if not all(places.values()):
        return None
    several = next((name for name in missing if len(places[name]) > 1), None)
    if several is not None:
        found = " or ".join(map(repr, places[several][:2]))
        raise UserError(f"data.path: image {several!r} may be {found}; write the folders into the list")
    parts = [change] if change else []
    parts += ["in whichever folder below holds them", *(["with the suffix of the image there"] if with_suffix else [])]
    return _Reading(" and ".join(parts), folder, lambda name: places[name][0])


def _reading(
    place: str, change: str, *, rewrite: Callable[[str], str], dropped: int, folder: str, stems: "_Stems | None"
) -> _Reading:
    def file(name: str) -> str:
        tail = "/".join(rewrite(name).split("/")[dropped:])
        return _joined(place, tail) if stems is None else stems.file(tail)

    return _Reading(_meaning(change, dropped=dropped, place=place, folder=folder, stems=stems), place, file)


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    return unquote(_slashed(name))


class _Stems:
    """The images in and below a folder by their paths without suffix, or with one in another case."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._names: dict[str, dict[str, list[str]]] = {}

    def file(self, name: str) -> str:
        """The one image of this name with a suffix; nothing, which is no file, where there is none. Several are a UserError."""
        inner, _, stem = name.rpartition("/")
        if inner not in self._names:
            self._names[inner] = _images_by_stem(_joined(self.place, inner))
        names = self._names[inner].get(stem, []) or self._in_other_case(inner, stem)
        if len(names) > 1:
            raise UserError(
                f"data.path: image {name!r} may be {' or '.join(map(repr, sorted(names)))}; write the suffixes into the list"
            )
        return _joined(_joined(self.place, inner), names[0]) if names else ""

    def _in_other_case(self, inner: str, name: str) -> list[str]:
        if not is_image(name):
            return []
        stem, _, suffix = name.rpartition(".")
        names = self._names[inner].get(stem, [])
        return [other for other in names if other.rpartition(".")[2].lower() == suffix.lower()]


def _images_by_stem(folder: str) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = defaultdict(list)
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        names = []
    for name in names:
        if is_image(name):
            by_stem[name.rpartition(".")[0]].append(name)
    return by_stem


def _places(folder: str) -> list[str]:
    """The list's folder, then those in it and in these."""
    root = Path(folder or ".")
    below = [
        entry for pattern in ("*/", "*/*/") for entry in sorted(root.glob(pattern)) if not entry.name.startswith(".")
    ]
    return [folder, *(str(entry) for entry in below[:MOST_FOLDERS])]


def _meaning(change: str, *, dropped: int, place: str, folder: str, stems: "_Stems | None") -> str:
    parts = [change] if change else []
    if dropped:
        parts.append(f"without their first {dropped} part{'s' if dropped > 1 else ''}")
    if place != folder:
        parts.append(f"in {place!r}")
    if stems is not None:
        parts.append("with the suffix of the image there")
    return " and ".join(parts)
