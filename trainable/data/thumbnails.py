"""Small pictures of images, for pages."""

import io

import numpy as np
from PIL import Image

from trainable.data.decode import Pixels

SIDE = 96  # pixels of the longer side, at most
QUALITY = 80  # of the JPEG: some 3 kB a picture


def thumbnail(pixels: Pixels) -> bytes:
    """A JPEG of an image H×W×C; of other channel counts than one and three the first channel alone, in grey."""
    shown = pixels if pixels.shape[2] == 3 else pixels[:, :, 0]
    picture = Image.fromarray(np.ascontiguousarray(shown))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()
