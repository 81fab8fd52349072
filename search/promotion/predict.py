"""Image files to classes, by a registered model."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from rich.table import Table

from search.tracking.model_files import BadInputError, classify, load
from search.tracking.registry import download
from search.tracking.uri import check_uri
from trainable.atomic import write_beside
from trainable.data.packaged import PACKAGE
from trainable.data.readers.folder import image_names
from trainable.data.readers.walk import known_suffixes
from trainable.errors import UserError

IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one image: classes with their scores, the likeliest first; or why it says nothing.

    ``plausible`` are the classes that are likely enough to be right; None from a model that does not say.
    """

    path: str
    top_k: tuple[str, ...] = ()
    top_k_scores: tuple[float, ...] = ()
    plausible: tuple[str, ...] | None = None
    error: str | None = None

    @property
    def is_unsure(self) -> bool | None:
        """Whether not just one class is plausible."""
        return None if self.plausible is None else len(self.plausible) != 1

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        label, score = (self.top_k[0], self.top_k_scores[0]) if self.top_k else (None, None)
        return {
            "path": self.path,
            "label": label,
            "score": score,
            "top_k": self.top_k,
            "top_k_scores": self.top_k_scores,
            "plausible": self.plausible,
            "unsure": self.is_unsure,
            "error": self.error,
        }


def predict(
    model_uri: str, paths: Sequence[Path], *, uri: str, top_k: int, pictures: Path | None = None
) -> list[Prediction]:
    """Predict every image of the paths in order, a folder's with those of all folders below.

    Into the folder ``pictures``, where one is given, goes of each image that was classified one of where its class is seen, under
    its number, label and name. Raises UserError for a path without images, for a model that is not there or not as it was
    registered, and for pictures that cannot be made or written.
    """
    images = [image for path in paths for image in _images(path)]
    with TemporaryDirectory() as temporary:
        folder = download(check_uri(uri), model_uri, folder=Path(temporary))
        draw = None if pictures is None else _drawing(folder / PACKAGE, model_uri=model_uri)
        model = load(folder)
        batches = [images[start : start + IMAGES_AT_ONCE] for start in range(0, len(images), IMAGES_AT_ONCE)]
        predictions = [prediction for batch in batches for prediction in _predict(model, batch, top_k=top_k)]
        if draw is not None and pictures is not None:
            for number, prediction in enumerate(predictions):
                if prediction.error is None:
                    label, name = prediction.top_k[0], Path(prediction.path).stem
                    path = pictures / f"{number:04d}-{_file_name(label)}-{name}.png"
                    _write_picture(draw(Path(prediction.path).read_bytes(), label), path=path)
        return predictions


def _drawing(package: Path, *, model_uri: str) -> Callable[[bytes, str], Image.Image]:
    """What makes a picture of an image and a label. Raises UserError where it cannot be made for a model, or here."""
    from trainable.serving.explanation import check_library, explain  # with all that trains
    from trainable.serving.package import has_own_code, load_package

    check_library()
    if not has_own_code(package):
        raise UserError(f"--explain: {model_uri} was packaged by another version of this project; promote it anew")
    classifier = load_package(package)
    return lambda image, label: explain(classifier, image, label=label).picture()


def _file_name(label: str) -> str:
    """A class's name without what a file's may not have."""
    return re.sub(r"[^\w-]+", "_", label)


def _write_picture(picture: Image.Image, *, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as file:
            picture.save(file, "png")
    except OSError as error:
        raise UserError(f"--explain: cannot write {path} ({error.strerror})") from error


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """Lay predictions out for a terminal."""
    table = Table("image", "label", "score", "then", box=None, pad_edge=False)
    for image in predictions:
        if image.error is not None:
            table.add_row(image.path, "-", "-", image.error)
            continue
        others = zip(image.top_k[1:], image.top_k_scores[1:], strict=True)
        then = ", ".join(f"{name} {score:.4f}" for name, score in others)
        label = f"unsure: {' or '.join(image.plausible or ()) or 'none'}" if image.is_unsure else image.top_k[0]
        table.add_row(image.path, label, f"{image.top_k_scores[0]:.4f}", then)
    return table


def write_csv(predictions: Sequence[Prediction], *, path: Path) -> None:
    """Write one row for each image; of the further classes a JSON list."""
    text = io.StringIO()
    rows = [prediction.as_dict() for prediction in predictions]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(
        {**row, **{name: json.dumps(row[name]) for name in ("top_k", "top_k_scores", "plausible")}} for row in rows
    )
    try:
        with write_beside(path) as file:
            file.write(text.getvalue().encode(errors="surrogateescape"))  # names of files as they are
    except OSError as error:
        raise UserError(f"--csv: cannot write {path} ({error.strerror})") from error


def _images(path: Path) -> list[Path]:
    """The file, or the images below a folder as training finds them: each once, what systems leave behind left out."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: there is no such file or folder")
    images = sorted(Path(folder, name) for folder, names in image_names(str(path)) for name in names)
    if not images:
        raise UserError(f"{path}: has no images; {known_suffixes()}")
    return images


def _predict(model: Any, images: Sequence[Path], *, top_k: int) -> list[Prediction]:
    """Predict all at once; where one of them is none, one by one, so that it costs no other."""
    try:
        answers = classify(model, [image.read_bytes() for image in images], top_k=top_k)
    except (BadInputError, OSError) as error:
        if len(images) == 1:
            return [Prediction(path=str(images[0]), error=str(error))]
        return [prediction for image in images for prediction in _predict(model, [image], top_k=top_k)]
    return [
        Prediction(
            path=str(image),
            top_k=tuple(answer["top_k"]),
            top_k_scores=tuple(answer["top_k_scores"]),
            plausible=tuple(answer["plausible"]) if "plausible" in answer else None,
        )
        for image, answer in zip(images, answers, strict=True)
    ]
