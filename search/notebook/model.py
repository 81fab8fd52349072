"""A trained network that answers for images."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from search.promotion.export import packaged_final
from trainable.data.readers.folder import image_names
from trainable.errors import UserError
from trainable.serving.package import load_package

Image = str | Path | bytes


class Model:
    """A packaged network; ``classes`` are in the order of the probabilities."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._classifier = load_package(package)
        self.classes = self._classifier.classes

    @classmethod
    def of_search(cls, folder: Path) -> "Model":
        """The candidate that ``promote`` confirmed, else the final candidate of a finished search, packaged for this."""
        return cls(packaged_final(folder))

    def probabilities(self, images: Image | Sequence[Image]) -> pd.DataFrame:
        """A row for each image, file or bytes, of a folder for each below it; a column for each class."""
        paths = list(_images(images))
        contents = [image if isinstance(image, bytes) else Path(image).read_bytes() for image in paths]
        names = [f"image {row}" if isinstance(image, bytes) else str(image) for row, image in enumerate(paths)]
        found = self._classifier.probabilities(contents)
        return pd.DataFrame(found, columns=list(self.classes), index=pd.Index(names, name="image"))

    def predict(self, images: Image | Sequence[Image]) -> pd.DataFrame:
        """A row for each image: its ``label``, the likeliest class, and that one's ``score``."""
        probabilities = self.probabilities(images)
        return pd.DataFrame({"label": probabilities.idxmax(axis=1), "score": probabilities.max(axis=1)})


def _images(images: Image | Sequence[Image]) -> list[Image]:
    if isinstance(images, str | Path | bytes):
        images = [images]
    found: list[Image] = []
    for image in images:
        if isinstance(image, bytes) or Path(image).is_file():
            found.append(image)
        elif Path(image).is_dir():
            found += sorted(str(Path(folder, name)) for folder, names in image_names(str(image)) for name in names)
        else:
            raise UserError(f"{image}: there is no such file or folder")
    return found
