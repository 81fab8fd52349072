"""How large the images of a data set are as stored."""

from statistics import median

import numpy as np

from trainable.config.trial import DataConfig
from trainable.data.decode import BadImageError, load
from trainable.data.readers.read import read_source

LOOKED_AT = 60  # images: a median of so many is near that of all


def median_short_side(config: DataConfig) -> int | None:
    """The median of the images' shorter sides, pixels, of ``LOOKED_AT`` at even distances; None where none can be decoded."""
    samples = read_source(config).every_sample
    rows = np.linspace(0, len(samples) - 1, num=min(len(samples), LOOKED_AT)).astype(int)
    sides = []
    for row in rows:
        try:
            image = load(samples[row].read_bytes(), **config.decoding).image
        except (BadImageError, OSError):
            continue
        sides.append(min(image.shape[:2] if isinstance(image, np.ndarray) else image.size))
    return round(median(sides)) if sides else None
