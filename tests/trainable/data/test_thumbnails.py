import io

import numpy as np
import pytest
from PIL import Image

from trainable.data.thumbnails import SIDE, thumbnail


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (5, "L")])
def test_a_thumbnail_is_a_small_jpeg_of_the_whole_image(channels, mode):
    pixels = np.full((120, 240, channels), 200, np.uint8)
    pixels[:, 120:] = 40
    picture = Image.open(io.BytesIO(thumbnail(pixels)))
    assert (picture.format, picture.size, picture.mode) == ("JPEG", (SIDE, SIDE // 2), mode)
    grey = np.asarray(picture.convert("L"), dtype=int)
    assert abs(grey[:, :40] - 200).max() < 6  # what JPEG changes
    assert abs(grey[:, -40:] - 40).max() < 6
