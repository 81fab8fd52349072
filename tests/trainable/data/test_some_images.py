"""Images decoded for another size than their pack's, beside a pack of that size."""

import numpy as np
import pytest

from trainable.config.trial import DataConfig
from trainable.data.image_guard import ImagesChangedError
from trainable.data.input_spec import InputSpec
from trainable.data.pack import open_pack
from trainable.data.some_images import SomeImages

LARGER = InputSpec(size=28, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=1.0)


@pytest.fixture
def config(draw_folder, cache):
    return DataConfig(path=str(draw_folder({"cat": 6, "dog": 6})), cache=cache, channels=3)


def test_they_are_what_a_pack_of_that_size_holds(config, spec):
    pack, larger = open_pack(config, spec), open_pack(config, LARGER)
    rows = np.array([7, 2, 11])
    for row, image in zip(rows, SomeImages(pack, config=config).decoded(rows, spec=LARGER), strict=True):
        assert image.shape[0] == 28
        assert np.array_equal(image, larger.image(row))


def test_an_image_that_is_another_or_gone_is_not_taken(config, spec, draw_image, tmp_path):
    pack = open_pack(config, spec)
    images = SomeImages(pack, config=config)
    changed, gone = 0, 1
    draw_image(tmp_path / "images" / pack.names[changed], number=99)
    (tmp_path / "images" / pack.names[gone]).unlink()
    for row in (changed, gone):
        with pytest.raises(ImagesChangedError, match=f"'{pack.names[row]}' is gone or another image"):
            images.decoded(np.array([row]), spec=LARGER)
    images.decoded(np.array([5]), spec=LARGER)
