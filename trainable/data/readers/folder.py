"""Reads folders of images: class folders, with or without train, val and test above them, or no classes at all."""

import os
from collections.abc import Callable, Iterator, Sized
from pathlib import Path

from trainable.config.trial import DataConfig
from trainable.data.readers.sample import Found, Sample, Source, file_reader, split_of
from trainable.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy")


def read_folder(path: str, config: DataConfig) -> Found:
    """``path/<class>/…`` or ``path/{train,val,test}/<class>/…``; a class folder's own folders belong to the class.

    A domain to adapt to may be a folder of images alone.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"data.path: {config.path!r} is a file; `data.format: folder` reads a folder")
    if config.target == config.path and not _has_classes(root):
        return _without_classes(root)
    classes = {
        (split, folder.name): (_images(folder), folder)
        for split, parent in _split_folders(root).items()
        for folder in _folders(parent)
    }
    if not classes:
        raise UserError(f"data.path: {config.path!r} has no class folders, expected <class>/ or train/<class>/")
    if not any(images for images, _ in classes.values()):
        raise UserError(f"data.path: {config.path!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    for images, folder in classes.values():
        if not images:
            raise UserError(f"data.path: class folder {folder.relative_to(root).as_posix()!r} has no images")
    samples = [
        sample
        for (split, label), (images, folder) in classes.items()
        for sample in _samples(images, folder=folder, path=root, label=label, split=split)
    ]
    return _with_files(samples)


def _has_classes(path: Path) -> bool:
    """Whether class folders lie in a folder, or in its train folder, rather than images."""
    inner = path / "train" if (path / "train").is_dir() else path
    return not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in inner.iterdir())


def _without_classes(path: Path) -> Found:
    """The images of a folder, or of its folders train, val and test, without labels."""
    splits = _split_folders(path, in_train=_images) if (path / "train").is_dir() else {None: path}
    samples = [
        sample
        for split, folder in splits.items()
        for sample in _samples(_images(folder), folder=folder, path=path, label="", split=split)
    ]
    return _with_files(samples)


def read_unlabelled(config: DataConfig) -> Source:
    """Every image below the folder ``config.path``, however deep, under one label that means nothing."""
    path = Path(config.path).expanduser()
    if not path.is_dir():
        raise UserError(f"data.path: {config.path!r} is no folder; unlabelled images are read from a folder")
    images = _images(path)
    if not images:
        raise UserError(f"data.path: {config.path!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    data = _with_files(_samples(images, folder=path, path=path, label="", split=None))
    return Source(samples=tuple(data.samples), classes=("",), files=tuple(data.files))


def image_names(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The path of this folder and of each below it, with the names of its images; links are followed, hidden ones left out.

    Both follow from what is there, not from the order of the disk.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield parent, sorted(name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != ".")


def _with_files(samples: list[Sample]) -> Found:
    return Found(samples, [sample.file for sample in samples])


def _samples(images: list[str], *, folder: Path, path: Path, label: str, split: str | None) -> list[Sample]:
    """Make the samples of a folder's images, which are named from it; their own names are relative to ``path``."""
    above = "" if folder == path else f"{folder.relative_to(path).as_posix()}/"
    place = os.path.join(folder, "")  # noqa: PTH118 - with its slash; a million Path objects take seconds
    files = [place + image for image in images]
    return [
        Sample(
            name=above + image,
            label=label,
            split=split,
            group=None,
            domain=None,
            file=file,
            read_bytes=file_reader(file),
        )
        for image, file in zip(images, files, strict=True)
    ]


def _split_folders(path: Path, *, in_train: Callable[[Path], Sized] | None = None) -> dict[str | None, Path]:
    """The folder of every given split; of None the folder itself where its own folders are the classes.

    The folder train is one of a split where ``in_train`` finds something in it, without it where it has folders.
    """
    if not (path / "train").is_dir() or not (in_train or _folders)(path / "train"):
        return {None: path}
    folders: dict[str | None, Path] = {}
    for folder in _folders(path):
        split = split_of(folder.name, field="data.path")
        if split in folders:
            raise UserError(f"data.path: folders {folders[split].name!r} and {folder.name!r} both mean {split}")
        folders[split] = folder
    return folders


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[str]:
    """The images below a folder as paths from it, sorted by their parts."""
    images: list[str] = []
    for parent, names in image_names(str(folder)):
        inner = Path(parent).relative_to(folder).as_posix()
        images += names if inner == "." else [f"{inner}/{name}" for name in names]
    return sorted(images, key=lambda image: image.split("/"))
