"""Images held out that look all but like a training image, so that a score on them may be too good."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainable.data.decode import Pixels
from trainable.data.pack import Pack
from trainable.data.thumbnails import picture

SIDE = 32  # pixels to which images are averaged, in grey
LEAST = 0.95  # correlation of two such images
NEARER = 0.2  # how much nearer the likest image must be than one that is further down: a share of its distance
SHARE, NEIGHBOURS = 0.02, 10  # where that one stands: of the training images, and at least the tenth
BLOCK = 256  # images that are compared at once
MOST = 3000  # images of a side that are looked at
FEWEST = 1e-3  # of the grey levels' standard deviation: below it an image shows nothing


class Alike(NamedTuple):
    """Places in a pack of a held-out image and of the training image that it looks like, and their correlation."""

    held_out: int
    trained: int
    similarity: float


def alike_across_splits(pack: Pack) -> list[Alike]:
    """The validation and test images that look all but like one of the training images, the likest first.

    By the correlation r of grey images of 32×32 pixels. What all images of a kind share, as X-rays do, makes none alike: the
    likest training image has to be five times nearer, by 1 - r, than the nearest fiftieth of them, or the tenth. So a scene that
    more of them show is not found, of turned and mirrored copies it knows nothing, and little of other cuts of one photo. Of
    more than ``MOST`` images on either side so many are looked at.
    """
    trained = _some(pack.indices("train"))
    held_out = _some(np.concatenate([pack.indices(split) for split in ("val", "test")]))
    rank = max(NEIGHBOURS, round(SHARE * len(trained)))
    if len(trained) <= rank or not len(held_out):
        return []
    known, found = _small(pack, rows=trained), []
    for begin in range(0, len(held_out), BLOCK):
        rows = held_out[begin : begin + BLOCK]
        similar = _small(pack, rows=rows) @ known.T
        best, others = similar.max(axis=1), np.partition(similar, -rank, axis=1)[:, -rank]
        places = trained[similar.argmax(axis=1)]
        alike = (best >= LEAST) & (1 - best <= NEARER * (1 - others))
        found += [Alike(int(rows[i]), int(places[i]), float(best[i])) for i in np.flatnonzero(alike)]
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
    """An image H×W×C as SIDE×SIDE means of the channels of its picture."""
    levels = np.asarray(picture(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    return levels.mean(axis=2) if levels.ndim == 3 else levels
