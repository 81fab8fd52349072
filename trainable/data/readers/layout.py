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
    notes = [] if place == root else [_note(f"the data set was taken to begin at {_inner(place, root)!r}")]
    folders = _folders(place)
    names = {folder.name: split_in_name(folder.name) for folder in folders}
    if wanted == "splits" and "train" not in names.values():
        raise UserError(f"data.layout: splits, but no folder in {str(root)!r} is named as train")
    if "train" not in names.values() or not _are_splits(folders, names=names, wanted=wanted, root=root):
        if all(_are_splits_below(folder) for folder in folders) and folders:
            return _splits_below_classes(folders, notes=notes)
        _check_masks(folders, root=root)
        return Layout(classes=_classes(place, split=None), findings=tuple(notes))
    return _with_splits(folders, names=names, root=root, notes=notes)


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
    if others:
        hint = nearest(others[0].name.lower(), ["train", "val", "test"])
        raise UserError(
            f"data.path: {others[0].name!r} is no split, expected train, val or test{hint}; `data.layout: classes` takes all "
            "folders for classes"
        )
    return True


def _with_splits(folders: list[Path], *, names: Mapping[str, str | None], root: Path, notes: list[Finding]) -> Layout:
    classes: list[ClassFolder] = []
    by_split: dict[str, Path] = {}
    left_out: dict[Path, str] = {}
    for folder in folders:
        split = names[folder.name]
        if split is None:
            left_out[folder] = "beside the splits"
            continue
        if split in by_split:
            raise UserError(f"data.path: folders {by_split[split].name!r} and {folder.name!r} both mean {split}")
        by_split[split] = folder
        inner = _unwrapped(folder)
        found = _classes(inner, split=split)
        if split != "train" and not found:
            left_out[folder] = f"{folder.name} without class folders"
        classes += found
    odd = {folder.name: split for split, folder in by_split.items() if folder.name != split}
    if odd:
        meaning = ", ".join(f"{name}/ for {split}" for name, split in odd.items())
        notes.append(
            _note(f"folders were taken for splits: {meaning}", cure="`data.layout: classes` takes them for classes")
        )
    return Layout(classes=tuple(classes), findings=tuple(notes), left_out=left_out)


def _are_splits_below(folder: Path) -> bool:
    """Whether a class's folder holds train, val or test instead of images."""
    inner = [split_in_name(below.name) for below in _folders(folder)]
    return "train" in inner and None not in inner and not Walk().has_images(str(folder))


def _splits_below_classes(folders: list[Path], *, notes: list[Finding]) -> Layout:
    classes = [
        ClassFolder(split_in_name(inner.name), folder.name, inner) for folder in folders for inner in _folders(folder)
    ]
    text = "the folders train, val or test in every class's folder were taken for splits"
    notes.append(_note(text, cure="`data.layout: classes` takes all their images for the class's, without splits"))
    return Layout(classes=tuple(classes), findings=tuple(notes))


def _check_masks(folders: list[Path], *, root: Path) -> None:
    """A UserError where one of the folders holds masks of the other's images."""
    for mask in folders:
        for other in folders:
            if mask != other and _is_mask(mask.name) and _same_stems(mask, other):
                raise UserError(
                    f"data.path: {mask.name}/ holds files of the same names as {other.name}/, masks rather than a class; give "
                    f"{str(other)!r} as data.path if the classes are folders in it, else a list of the labels; "
                    "`data.layout: classes` takes both for classes"
                )


def _flat_error(root: Path, *, folders: list[Path]) -> UserError:
    names = " and ".join(f"{folder.name}/" for folder in folders)
    return UserError(
        f"data.path: images lie straight in {names}, without class folders{lists_beside(root)}; `data.layout: classes` takes the "
        "folders for classes"
    )


def lists_beside(root: Path) -> str:
    """The end of a message that offers the lists in a folder, in which the labels may be."""
    lists = sorted(entry for entry in root.iterdir() if entry.suffix.lower() in CSV_SUFFIXES and entry.is_file())
    if not lists:
        return ""
    first = next((entry for entry in lists if "train" in entry.name.lower() or "label" in entry.name.lower()), lists[0])
    columns = _columns(first)
    given = ", ".join(columns)
    keys = "; data.image_column and data.label_column name them" if {"image", "label"} - set(columns) else ""
    return f"; the labels may be in {first.name}, columns {given}: give {str(first)!r} as data.path{keys}"


def _columns(path: Path) -> list[str]:
    return [str(name) for name in read_text_table(path).table.column_names]


def _unwrapped(root: Path) -> Path:
    """The folder below, if this one holds nothing but it, and it holds several folders: `data/data/cat`, `train/train/cat`."""
    folders = _folders(root)
    if len(folders) != 1 or Walk().has_images(str(root)) or Walk().has_images(str(folders[0])):
        return root
    inner = _folders(folders[0])
    is_split = split_in_name(folders[0].name) is not None and split_in_name(root.name) is None
    if len(inner) < 2 or (is_split and not any(split_in_name(folder.name) for folder in inner)):
        return root
    return _unwrapped(folders[0])


def _classes(parent: Path, *, split: str | None) -> tuple[ClassFolder, ...]:
    return tuple(ClassFolder(split, folder.name, folder) for folder in _folders(parent))


def _folders(path: Path) -> list[Path]:
    return sorted(path / name for name in Walk().folders(str(path)))


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
    return place.relative_to(root).as_posix() + "/"


def _note(text: str, *, cure: str = "") -> Finding:
    return Finding(kind="layout", count=1, text=text, cure=cure)
