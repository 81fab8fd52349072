"""Tells what the folders of a data set are: classes, splits, neither."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainable.data.readers.findings import Finding
from trainable.data.readers.sample import split_in_name
from trainable.data.readers.text_table import CSV_SUFFIXES, read_text_table
from trainable.data.readers.walk import Walk
from trainable.errors import UserError, nearest

MASK_WORDS = (
    "mask",
    "masks",
    "segmentation",
    "segmentations",
    "annotation",
    "annotations",
    "gt",
    "ground_truth",
    "groundtruth",
)
_MASK_NAME = re.compile(r"(?P<image>.+)[ _-](?:masks?|seg|segmentation|gt)(?:[ _-]?\d+)?\.[^.]+$", re.IGNORECASE)


class ClassFolder(NamedTuple):
    """A folder of one class, in a given split or in none."""

    split: str | None
    label: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The class folders of a data set, in words what was understood, and folders that are left out with the reason."""

    classes: tuple[ClassFolder, ...]
    findings: tuple[Finding, ...] = ()
    left_out: Mapping[Path, str] = field(default_factory=dict)


def find_layout(root: Path, *, wanted: str) -> Layout:
    """The layout of the folder ``root``, found by names and contents, or as ``wanted``, `classes` or `splits`.

    Raises UserError where folders can be read in several ways or in none.
    """
    if wanted == "classes":
        return Layout(classes=_classes(root, split=None))
    place = root if wanted == "splits" else _unwrapped(root)
    notes = [] if place == root else [_note(f"the data set was taken to begin at {_inner(place, root) + '/'!r}")]
    folders = _folders(place)
    names = {folder.name: split_in_name(folder.name) for folder in folders}
    if wanted == "splits" and "train" not in names.values():
        raise UserError(f"data.layout: splits, but no folder in {str(root)!r} is named as train")
    if "train" in names.values() and _are_splits(folders, names=names, wanted=wanted, root=root):
        return _with_splits(folders, names=names, wanted=wanted, root=root, notes=notes)
    _check_train(folders, names=names)
    inner = {folder: _inner_folders(folder) for folder in folders}
    below = [folder for folder in folders if _hold_splits(inner[folder])]
    if below and below == folders:
        return _splits_below_classes(folders, notes=notes)
    _check_masks(folders, cure="`data.layout: classes` takes both for classes")
    notes += [*_partly_split(below, folders=folders), *_nested(inner)]
    return Layout(classes=_classes(place, split=None), findings=tuple(notes))


def find_masks(names: list[str]) -> set[str]:
    """Which of the files in one folder are masks of others there: `cell_mask.png` beside `cell.png`."""
    matches = {name: match for name in names if (match := _MASK_NAME.match(name))}
    if not matches:
        return set()
    stems = {name.rpartition(".")[0] for name in names}
    return {name for name, match in matches.items() if match["image"] in stems}


def mask_folders(folder: Path) -> set[Path]:
    """The folders in a class's folder that hold masks of the images in another one there, by their names."""
    inner = _folders(folder)
    return {
        mask for mask in inner if _is_mask(mask.name) for other in inner if other != mask and _same_stems(mask, other)
    }


def _are_splits(folders: list[Path], *, names: Mapping[str, str | None], wanted: str, root: Path) -> bool:
    """Whether folders, of which one is named as train, are splits; a UserError where some are and some are not."""
    train = [folder for folder in folders if names[folder.name] == "train"]
    others = [folder for folder in folders if names[folder.name] is None and _has_any_image(folder)]
    holds_classes = any(_folders(folder) and not Walk().has_images(str(folder)) for folder in train)
    if not holds_classes and wanted == "auto":
        if not others and len(folders) > 1 and all(Walk().has_images(str(folder)) for folder in folders):
            raise _flat_error(root, folders=folders)
        return False
    if others and wanted == "auto":
        hint = nearest(others[0].name.lower(), ["train", "val", "test"])
        raise UserError(
            f"data.path: {others[0].name!r} is no split, expected train, val or test{hint}; `data.layout: splits` leaves it "
            "out, `classes` takes all folders for classes"
        )
    return True


def _check_train(folders: list[Path], *, names: Mapping[str, str | None]) -> None:
    """A UserError where all folders are named as splits and hold class folders, and none is named as train."""
    splits = [folder for folder in folders if _has_any_image(folder)]
    if not splits or any(names[folder.name] in (None, "train") or not _inner_folders(folder) for folder in splits):
        return
    there = " and ".join(f"{folder.name}/" for folder in splits)
    raise UserError(
        f"data.path: there is {there} with class folders, but no train/; name the folder of the images to train on so, or "
        "`data.layout: classes` takes all folders for classes"
    )


def _with_splits(
    folders: list[Path], *, names: Mapping[str, str | None], wanted: str, root: Path, notes: list[Finding]
) -> Layout:
    by_split = _by_split(folders, names=names)
    left_out = {folder: "beside the splits" for folder in folders if names[folder.name] is None}
    classes: list[ClassFolder] = []
    trained: set[str] = set()
    for split, folder in sorted(by_split.items(), key=lambda item: item[0] != "train"):
        place = folder if {inner.name for inner in _folders(folder)} <= trained else _unwrapped(folder)
        inner = _folders(place)
        if wanted == "auto":
            _check_masks(inner, cure="`data.layout: splits` takes both for classes")
        found = [below for below in inner if below.name in trained or split_in_name(below.name) != split]
        if split == "train":
            if not found:
                raise _flat_error(root, folders=list(by_split.values()))
            trained = {below.name for below in found}
            notes += _nested({below: _inner_folders(below) for below in found})
        elif not found:
            left_out[folder] = f"{folder.name} without class folders"
        classes += [ClassFolder(split, below.name, below) for below in found]
    odd = {folder.name: split for split, folder in by_split.items() if folder.name != split}
    if odd:
        meaning = ", ".join(f"{name}/ for {split}" for name, split in odd.items())
        notes.append(
            _note(f"folders were taken for splits: {meaning}", cure="`data.layout: classes` takes them for classes")
        )
    return Layout(classes=tuple(classes), findings=tuple(notes), left_out=left_out)


def _by_split(folders: list[Path], *, names: Mapping[str, str | None]) -> dict[str, Path]:
    by_split: dict[str, Path] = {}
    for folder in folders:
        split = names[folder.name]
        if split in by_split:
            both = f"{by_split[split].name!r} and {folder.name!r}"
            raise UserError(f"data.path: folders {both} both mean {split}; join them, or move one elsewhere")
        if split is not None:
            by_split[split] = folder
    return by_split


def _partly_split(below: list[Path], *, folders: list[Path]) -> list[Finding]:
    """What is said where some classes' folders hold train, val or test and some hold images."""
    if not below:
        return []
    other = next(folder for folder in folders if folder not in below)
    text = (
        f"the folders train, val or test in {below[0].name!r} were not taken for splits, since {other.name!r} has none"
    )
    return [_note(text, cure="give all classes such folders, or a list with the splits")]


def _nested(folders: Mapping[Path, list[Path]]) -> list[Finding]:
    """What is said where all classes' folders hold nothing but folders, some of them several, which may be the classes."""
    inner = {folder: [below for below in inside if not _is_mask(below.name)] for folder, inside in folders.items()}
    if not inner or not all(inner.values()):
        return []
    several = next((below for below in inner.values() if len(below) > 1), None)
    if several is None:
        return []
    examples = " and ".join(repr(f"{below.parent.name}/{below.name}") for below in several[:2])
    text = f"each class's folder holds folders, such as {examples}; all their images are {several[0].parent.name!r}"
    return [
        _note(text, cure="give a list of the images, or another folder as data.path, if the classes are those inside")
    ]


def _hold_splits(inner: list[Path]) -> bool:
    """Whether the folders in a class's folder are train, val or test."""
    splits = [split_in_name(below.name) for below in inner]
    return "train" in splits and None not in splits


def _splits_below_classes(folders: list[Path], *, notes: list[Finding]) -> Layout:
    classes = [
        ClassFolder(split_in_name(inner.name), folder.name, inner) for folder in folders for inner in _folders(folder)
    ]
    text = "the folders train, val or test in every class's folder were taken for splits"
    notes.append(_note(text, cure="`data.layout: classes` takes all their images for the class's, without splits"))
    return Layout(classes=tuple(classes), findings=tuple(notes))


def _check_masks(folders: list[Path], *, cure: str) -> None:
    """A UserError where one of the folders holds masks of the other's images."""
    for mask in [folder for folder in folders if _is_mask(folder.name)]:
        for other in folders:
            if mask != other and _same_stems(mask, other):
                raise UserError(
                    f"data.path: {mask.name}/ holds files of the same names as {other.name}/, masks rather than a class; give "
                    f"{str(other)!r} as data.path if the classes are folders in it, else a list of the labels; {cure}"
                )


def _flat_error(root: Path, *, folders: list[Path]) -> UserError:
    names = " and ".join(f"{folder.name}/" for folder in folders)
    return UserError(
        f"data.path: images lie straight in {names}, without class folders{lists_beside(root)}; `data.layout: classes` takes the "
        "folders for classes"
    )


def lists_beside(root: Path) -> str:
    """The end of a message that offers the lists in a folder or in those below it, in which the labels may be."""
    lists = [
        entry
        for folder in (root, *_folders(root))
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in CSV_SUFFIXES and entry.is_file()
    ]
    if not lists:
        return ""
    first = next(
        (entry for entry in lists if any(word in _inner(entry, root).lower() for word in ("train", "label"))), lists[0]
    )
    columns = _columns(first)
    given = f", columns {', '.join(columns)}" if columns else ""
    keys = "; data.image_column and data.label_column name them" if {"image", "label"} - set(columns) else ""
    return f"; the labels may be in {_inner(first, root)}{given}: give {str(first)!r} as data.path{keys}"


def _columns(path: Path) -> list[str]:
    try:
        return [str(name) for name in read_text_table(path).table.column_names]
    except (OSError, UserError):  # of which nobody spoke yet
        return []


def _unwrapped(root: Path) -> Path:
    """The first folder below that holds several, if each above holds nothing but one: `data/data/cat`, `train/train/cat`."""
    folders = _folders(root)
    if len(folders) != 1 or Walk().has_images(str(root)) or Walk().has_images(str(folders[0])):
        return root
    is_split = split_in_name(folders[0].name) is not None and split_in_name(root.name) is None
    if is_split and not any(split_in_name(folder.name) for folder in _folders(folders[0])):
        return root
    place = _unwrapped(folders[0])
    inner = _folders(place)
    return place if len(inner) > 1 or any(split_in_name(folder.name) for folder in inner) else root


def _classes(parent: Path, *, split: str | None) -> tuple[ClassFolder, ...]:
    return tuple(ClassFolder(split, folder.name, folder) for folder in _folders(parent))


def _folders(path: Path) -> list[Path]:
    return sorted(path / name for name in Walk().folders(str(path)))


def _inner_folders(folder: Path) -> list[Path]:
    """The folders in a folder beside which no image lies."""
    inner = _folders(folder)
    return [] if inner and Walk().has_images(str(folder)) else inner


def _has_any_image(folder: Path) -> bool:
    return any(names for _, names in Walk().images(str(folder)))


def _is_mask(name: str) -> bool:
    words = re.split(r"[^a-z]+", name.lower())
    return name.lower() in MASK_WORDS or any(word in ("mask", "masks", "annotations") for word in words)


def _same_stems(mask: Path, other: Path) -> bool:
    """Whether each image of one folder has the name of one in the other, but for the suffix and an ending such as `_mask`."""
    of_mask, of_other = (
        [name for _, names in Walk().images(str(folder)) for name in names] for folder in (mask, other)
    )
    images = {name.rpartition(".")[0] for name in of_other}
    return bool(of_mask) and all(name.rpartition(".")[0] in images or _unmasked(name) in images for name in of_mask)


def _unmasked(name: str) -> str:
    match = _MASK_NAME.match(name)
    return name if match is None else match["image"]


def _inner(place: Path, root: Path) -> str:
    return place.relative_to(root).as_posix()


def _note(text: str, *, cure: str = "") -> Finding:
    return Finding(kind="layout", count=1, text=text, cure=cure)
