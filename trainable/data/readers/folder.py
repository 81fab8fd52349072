"""Reads folders of images: class folders, with or without train, val and test above them, or no classes at all."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainable.config.trial import DataConfig
from trainable.data.readers.findings import Finding, counted
from trainable.data.readers.layout import ClassFolder, Layout, find_layout, find_masks, lists_beside, mask_folders
from trainable.data.readers.sample import Found, Sample, Source, file_reader, split_in_name
from trainable.data.readers.walk import UNREAD_SUFFIXES, Walk, known_suffixes
from trainable.errors import UserError


def read_folder(path: str, config: DataConfig) -> Found:
    """``path/<class>/…`` or ``path/{train,val,test}/<class>/…``; a class folder's own folders belong to the class.

    A domain to adapt to may be a folder of images alone.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"data.path: {config.path!r} is a file; `data.format: folder` reads a folder")
    if config.target == config.path and not _has_classes(root):
        return _without_classes(root)
    layout = find_layout(root, wanted=config.layout)
    if not layout.classes:
        raise UserError(
            f"data.path: {config.path!r} has no class folders, expected <class>/ or train/<class>/{_straight_in(root)}"
            f"{lists_beside(root)}"
        )
    found = _read_classes(root, layout=layout, keeps_masks=config.layout == "classes")
    if config.target is None and len({sample.label for sample in found.samples}) == 1:
        _check_alone(str(found.samples[0].label), root=root, layout=layout)
    return found._replace(findings=(*_of_columns(config), *found.findings))


def _of_columns(config: DataConfig) -> Iterator[Finding]:
    """What is said of settings that only a list can follow."""
    for name in ("group_column", "images"):
        value = getattr(config, name)
        if value is not None:
            text = f"data.{name}: {value!r} has no effect on a folder of images"
            yield Finding(kind="layout", count=1, text=text, cure="give a list of them, such as a CSV")


def _read_classes(root: Path, *, layout: Layout, keeps_masks: bool) -> Found:
    walk, findings = Walk(), list(layout.findings)
    above = sorted(
        {parent for place in layout.classes for parent in place.folder.parents if parent.is_relative_to(root)}
    )
    for folder in (*root.resolve().parents, *above):
        walk.enter(str(folder))
    samples: list[Sample] = []
    empty: list[ClassFolder] = []
    places = sorted(layout.classes, key=lambda place: place.folder.is_symlink())
    is_new = {place: walk.enter(str(place.folder)) for place in places if not place.folder.is_symlink()}
    for place in places:  # no link in one class's folder takes another's away
        folders = walk.inside(str(place.folder)) if is_new.get(place) else walk.images(str(place.folder))
        images = _images_of_class(place.folder, folders=folders, walk=walk, keeps_masks=keeps_masks)
        empty += [] if images else [place]
        samples += _samples(images, folder=place.folder, path=root, label=place.label, split=place.split)
    for folder in above:
        for parent, names in walk.inside(str(folder)):
            reasons = [reason for out, reason in layout.left_out.items() if Path(parent).is_relative_to(out)]
            for name in names:
                walk.tally.add(reasons[0] if reasons else "outside of class folders", f"{parent}/{name}")
    if not samples:
        raise UserError(f"data.path: {str(root)!r} has no images{_left(walk)}; {known_suffixes()}")
    findings += _empty_classes(empty, root=root)
    ordered = sorted(samples, key=lambda sample: sample.name.split("/"))
    findings += [*_of_one_name([sample.name for sample in ordered]), *walk.tally.finding(root=str(root))]
    return Found(ordered, [sample.file for sample in ordered], tuple(findings), dict(walk.tally.counts))


def _images_of_class(
    folder: Path, *, folders: Iterable[tuple[str, list[str]]], walk: Walk, keeps_masks: bool
) -> list[str]:
    """The images in the ``folders`` below a class's as paths from it, without masks of others."""
    of_masks = set() if keeps_masks else mask_folders(folder)
    images: list[str] = []
    for parent, names in folders:
        place = Path(parent)
        masks = set() if keeps_masks else find_masks(names)
        masks |= set(names) if any(place.is_relative_to(mask) for mask in of_masks) else set()
        for name in masks:
            walk.tally.add("masks", f"{parent}/{name}")
        inner = place.relative_to(folder).as_posix()
        images += [name if inner == "." else f"{inner}/{name}" for name in names if name not in masks]
    return sorted(images, key=lambda image: image.split("/"))


def _of_one_name(names: list[str]) -> Iterator[Finding]:
    """What is said of images whose names, which are sorted, differ in the suffix alone: `cell.jpg` and its mask `cell.png`."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_stem[name.rpartition(".")[0]].append(name)
    pairs = [same for same in by_stem.values() if len(same) > 1]
    if pairs:
        text = f"{counted(len(pairs), 'image')} beside another one of that name with another suffix, both used"
        examples = tuple(" and ".join(map(repr, same[:2])) for same in pairs)
        cure = "if these are masks or copies, move them elsewhere"
        yield Finding(kind="one_name", count=len(pairs), text=text, examples=examples, cure=cure)


def _check_alone(label: str, *, root: Path, layout: Layout) -> None:
    """A UserError where a class is alone and the folders in it may be the classes, or a list beside it may have the labels."""
    split, folder = next((place.split, place.folder) for place in layout.classes if place.label == label)
    is_outer = split is None and len(Walk().folders(str(folder))) > 1 and not Walk().has_images(str(folder))
    others = (f"; give {str(folder)!r} as data.path if they are the folders in it" if is_outer else "") + lists_beside(
        root
    )
    if others:
        raise UserError(f"data.path: {label!r} is the only class; a classifier needs two{others}")


def _straight_in(root: Path) -> str:
    """What lies in a folder that was to hold class folders."""
    walk = Walk()
    images = [name for _, names in walk.images(str(root)) for name in names]
    straight = f"; {counted(len(images), 'image')} straight in it, such as {min(images)!r}" if images else ""
    return straight + _left(walk)


def _empty_classes(places: list[ClassFolder], *, root: Path) -> Iterator[Finding]:
    """What is said of class folders without images; a UserError where images lie in one that cannot be read."""
    for place in places:
        name = place.folder.relative_to(root).as_posix()
        look = Walk()
        for _ in look.images(str(place.folder)):
            pass
        if {*UNREAD_SUFFIXES, "no suffix"} & look.tally.counts.keys():
            raise UserError(f"data.path: class folder {name!r} has no images{_left(look)}")
        linked = " of its own, it leads to a folder that is read already" if place.folder.is_symlink() else ""
        text = f"the folder {name!r} has no images{linked}, and is no class{_left(look)}"
        yield Finding(kind="empty_class", count=1, text=text)


def _left(walk: Walk) -> str:
    counts = walk.tally.counts
    files = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    heic = ", which pip install pillow-heif reads" if {".heic", ".heif"} & counts.keys() else ""
    packed = ", which must be unpacked" if {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"} & counts.keys() else ""
    return f"; its files were left out: {files}{heic}{packed}" if counts else ""


def _has_classes(path: Path) -> bool:
    """Whether class folders lie in a folder, or in its train folder, rather than images."""
    inner = next((path / name for name in Walk().folders(str(path)) if split_in_name(name) == "train"), path)
    return not Walk().has_images(str(inner))


def _without_classes(path: Path) -> Found:
    """The images of a folder, or of its folders train, val and test, without labels."""
    splits = {name: split_in_name(name) for name in Walk().folders(str(path))}
    places = {split: path / name for name, split in splits.items()} if "train" in splits.values() else {None: path}
    walk, samples = Walk(), []
    for split, folder in places.items():
        images = _images(folder, walk=walk)
        samples += _samples(images, folder=folder, path=path, label="", split=split)
    left_out = walk.tally.finding(root=str(path))
    return Found(samples, [sample.file for sample in samples], left_out, dict(walk.tally.counts))


def read_unlabelled(config: DataConfig, *, field: str = "data.path") -> Source:
    """Every image below the folder ``config.path``, however deep, under one label that means nothing; ``field`` names it."""
    path = Path(config.path).expanduser()
    if not path.is_dir():
        raise UserError(f"{field}: {config.path!r} is no folder; unlabelled images are read from a folder")
    walk = Walk()
    images = _images(path, walk=walk)
    if not images:
        raise UserError(f"{field}: {config.path!r} has no images{_left(walk)}; {known_suffixes()}")
    samples = _samples(images, folder=path, path=path, label="", split=None)
    return Source(
        samples=tuple(samples),
        classes=("",),
        files=tuple(sample.file for sample in samples),
        left_out=dict(walk.tally.counts),
    )


def image_names(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The path of this folder and of each below it, with the names of its images, as a :class:`Walk` finds them."""
    return Walk().images(folder)


def _images(folder: Path, *, walk: Walk) -> list[str]:
    """The images below a folder as paths from it, sorted by their parts."""
    return _images_of_class(folder, folders=walk.images(str(folder)), walk=walk, keeps_masks=True)


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
