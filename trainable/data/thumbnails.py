"""Small pictures of images, for pages."""

import io

import numpy as np
from PIL import Image

from trainable.data.decode import Pixels

SIDE = 96  # pixels of the longer side, at most
QUALITY = 80  # of the JPEG: some 3 kB a picture


def thumbnail(pixels: Pixels) -> bytes:
    """A JPEG of an image H×W×C, as :func:`picture` has it."""
    small = picture(pixels)
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()


def picture(pixels: Pixels) -> Image.Image:
    """An image H×W×C as people see it; of other channel counts than one and three the first channel alone, in grey."""
    shown = pixels if pixels.shape[2] == 3 else pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(shown))
