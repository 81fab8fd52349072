"""Reads folders of images: class folders, with or without train, val and test above them, or no classes at all."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainable.config import DataConfig
from trainable.data.source import Found, Sample, Source, split_of
from trainable.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy")


def read_folder(path: Path, config: DataConfig) -> Found:
    """``path/<class>/…`` or ``path/{train,val,test}/<class>/…``; a class folder's own folders belong to the class.

    A domain to adapt to may be a folder of images alone.
    """
    if not path.is_dir():
        raise UserError(f"data.path: {config.path!r} is a file; `data.format: folder` reads a folder")
    if config.target == config.path and not _has_classes(path):
        return _without_classes(path)
    found = {
        (split, folder.name): (_images(folder), folder)
        for split, parent in _split_folders(path).items()
        for folder in _folders(parent)
    }
    if not found:
        raise UserError(f"data.path: {config.path!r} has no class folders, expected <class>/ or train/<class>/")
    if not any(images for images, _ in found.values()):
        raise UserError(f"data.path: {config.path!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    for images, folder in found.values():
        if not images:
            raise UserError(f"data.path: class folder {folder.relative_to(path).as_posix()!r} has no images")
    samples = [
        Sample(image.relative_to(path).as_posix(), label, split, None, None, image.read_bytes)
        for (split, label), (images, _) in found.items()
        for image in images
    ]
    return Found(samples, [image for images, _ in found.values() for image in images])


def _has_classes(path: Path) -> bool:
    """Whether class folders lie in a folder, or in its train folder, rather than images."""
    inner = path / "train" if (path / "train").is_dir() else path
    return not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in inner.iterdir())


def _without_classes(path: Path) -> Found:
    """The images of a folder, or of its folders train, val and test, without labels."""
    splits = _split_folders(path, in_train=_images) if (path / "train").is_dir() else {None: path}
    found = [(image, split) for split, folder in splits.items() for image in _images(folder)]
    samples = [replace(_unlabelled(image, path=path), split=split) for image, split in found]
    return Found(samples, [image for image, _ in found])


def read_unlabelled(config: DataConfig) -> Source:
    """Every image below the folder ``config.path``, however deep, under one label that means nothing."""
    path = Path(config.path).expanduser()
    if not path.is_dir():
        raise UserError(f"data.path: {config.path!r} is no folder; unlabelled images are read from a folder")
    images = _images(path)
    if not images:
        raise UserError(f"data.path: {config.path!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return Source(tuple(_unlabelled(image, path=path) for image in images), classes=("",), files=tuple(images))


def _unlabelled(image: Path, *, path: Path) -> Sample:
    return Sample(image.relative_to(path).as_posix(), "", None, None, None, image.read_bytes)


def _split_folders(path: Path, *, in_train: Callable[[Path], list[Path]] | None = None) -> dict[str | None, Path]:
    """The folder of every given split; of None the folder itself where its own folders are the classes.

    The folder train is one of a split where ``in_train`` finds something in it, without it where it has folders.
    """
    if not (path / "train").is_dir() or not (in_train or _folders)(path / "train"):
        return {None: path}
    found: dict[str | None, Path] = {}
    for folder in _folders(path):
        split = split_of(folder.name, field="data.path")
        if split in found:
            raise UserError(f"data.path: folders {found[split].name!r} and {folder.name!r} both mean {split}")
        found[split] = folder
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."]
    return sorted(found)
