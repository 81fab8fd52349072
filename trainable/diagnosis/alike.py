"""Images held out that look all but like a training image, so that a score on them may be too good."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainable.data.decode import Pixels
from trainable.data.pack import Pack

SIDE = 32  # pixels to which images are averaged, in grey
LEAST = 0.95  # correlation of two such images
NEIGHBOURS, NEARER = 10, 0.2  # how much nearer the likest image must be than the tenth: a share of its distance
MOST = 10_000  # images of a side that are looked at: some seconds
FEWEST = 1e-3  # of the grey levels' standard deviation: below it an image shows nothing


class Alike(NamedTuple):
    """Places in a pack of a held-out image and of the training image that it looks like, and their correlation."""

    held_out: int
    trained: int
    similarity: float


def alike_across_splits(pack: Pack) -> list[Alike]:
    """The validation and test images that look all but like one of the training images, the likest first.

    By the correlation r of grey images of 32×32 pixels. What all images of a kind share, as X-rays do, makes none alike: the
    likest training image has to be five times nearer, by 1 - r, than the tenth. Of turned and mirrored copies it knows
    nothing, and little of other cuts of one photo. Of more than ``MOST`` images on either side so many are looked at.
    """
    trained = _some(pack.indices("train"))
    held_out = _some(np.concatenate([pack.indices(split) for split in ("val", "test")]))
    if len(trained) <= NEIGHBOURS or not len(held_out):
        return []
    known, asked = _small(pack, rows=trained), _small(pack, rows=held_out)
    found = []
    for row, image in zip(held_out.tolist(), asked, strict=True):
        similar = known @ image
        nearest = np.partition(similar, -NEIGHBOURS)[-NEIGHBOURS]
        place = int(similar.argmax())
        best = float(similar[place])
        if best >= LEAST and 1 - best <= NEARER * (1 - float(nearest)):
            found.append(Alike(row, int(trained[place]), best))
    return sorted(found, key=lambda pair: -pair.similarity)


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, num=min(len(rows), MOST)).astype(np.int64)] if len(rows) else rows


def _small(pack: Pack, *, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """N×1024, each of mean 0 and length 1; of an image that shows nothing 0 throughout."""
    flat = np.stack([_grey(pack.image(int(row))) for row in rows]).reshape(len(rows), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    shows = lengths > FEWEST * SIDE * 255
    return np.where(shows, flat / np.maximum(lengths, 1e-12), 0).astype(np.float32)


def _grey(pixels: Pixels) -> NDArray[np.float32]:
    """An image H×W×C as SIDE×SIDE means of its channels."""
    grey = Image.fromarray(pixels.mean(axis=2, dtype=np.float32))
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
