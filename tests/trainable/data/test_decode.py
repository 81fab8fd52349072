import io

import numpy as np
import pytest
from PIL import Image

from trainable.data.decode import BadImageError, decode

SETTINGS = {"side": 8, "interpolation": "bilinear"}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_pixels_of_the_stored_size_come_back_exactly():
    pixels = noise(8, 11, 3)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels)), channels=3, **SETTINGS), pixels)


@pytest.mark.parametrize(
    ("size", "stored"), [((16, 32), (16, 8)), ((30, 20), (8, 12)), ((3, 3), (8, 8)), ((50, 5), (8, 80))]
)
def test_the_shorter_side_becomes_the_stored_one_and_the_aspect_stays(size, stored):
    data = encoded(Image.new("RGB", size))
    assert decode(data, channels=3, **SETTINGS).shape == (*stored, 3)


def test_grey_images_feed_one_or_three_channels():
    pixels = noise(8, 8)
    data = encoded(Image.fromarray(pixels))
    assert np.array_equal(decode(data, channels=1, **SETTINGS), pixels[..., None])
    assert np.array_equal(decode(data, channels=3, **SETTINGS), np.repeat(pixels[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_to_eight(kind):
    wide = np.full((8, 8), 65535, np.uint16)
    wide[0, :5] = [0, 200, 257, 25700, 32768]
    pixels = decode(encoded(Image.fromarray(wide), kind), channels=1, **SETTINGS)
    assert pixels[0, :5, 0].tolist() == [0, 1, 1, 100, 128]
    assert (pixels[1:] == 255).all()


def test_transparency_palette_and_cmyk_become_colour():
    colour = (200, 30, 60)
    images = [Image.new("RGBA", (8, 8), (*colour, 40)), Image.new("RGB", (8, 8), colour).quantize()]
    for image in images:
        assert (decode(encoded(image), channels=3, **SETTINGS) == colour).all()
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "TIFF")
    assert (decode(cmyk, channels=3, **SETTINGS) == 255).all()


def test_an_image_is_turned_upright_by_its_exif():
    pixels = noise(8, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    data = encoded(Image.fromarray(pixels), exif=exif)
    assert np.array_equal(decode(data, channels=3, **SETTINGS), np.rot90(pixels, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_arrays_keep_every_channel(channels):
    pixels = noise(8, 9, channels)
    assert np.array_equal(decode(as_npy(pixels), channels=channels, **SETTINGS), pixels)
    small = decode(as_npy(noise(16, 20, channels)), channels=channels, **SETTINGS)
    assert small.shape == (8, 10, channels)


def test_channels_of_an_array_are_resized_like_grey_images():
    pixels = noise(16, 20, 5)
    stored = decode(as_npy(pixels), channels=5, **SETTINGS)
    for channel in range(5):
        alone = decode(encoded(Image.fromarray(pixels[..., channel])), channels=1, **SETTINGS)
        assert np.array_equal(stored[..., channel], alone[..., 0])


def test_the_interpolation_is_the_one_asked_for():
    data = encoded(Image.fromarray(noise(32, 32, 3)))
    found = {
        decode(data, channels=3, side=8, interpolation=name).tobytes()
        for name in ("nearest", "bilinear", "bicubic", "lanczos")
    }
    assert len(found) == 4


@pytest.mark.parametrize(
    ("data", "channels", "reason"),
    [
        (b"", 3, "not an image"),
        (b"no image at all", 3, "not an image"),
        (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:700], 3, "truncated"),
        (encoded(Image.fromarray(noise(64, 64, 3)))[:700], 3, "truncated"),
        (encoded(Image.new("F", (8, 8)), "TIFF"), 3, "floating-point"),
        (encoded(Image.new("RGB", (8, 8))), 5, "not a .npy array, which alone can hold 5 channels"),
        (as_npy(noise(8, 8, 4)), 5, "array 8×8×4 of uint8, expected H×W×5 of uint8"),
        (as_npy(np.zeros((8, 8, 3))), 3, "array 8×8×3 of float64"),
        (as_npy(noise(8, 8, 5))[:200], 5, ""),
        (as_npy(np.array([{}])), 5, ""),
        (as_npy(noise(0, 8, 5)), 5, "array 0×8×5"),
    ],
)
def test_what_cannot_be_used_is_a_bad_image_of_one_line(data, channels, reason):
    with pytest.raises(BadImageError) as caught:
        decode(data, channels=channels, **SETTINGS)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value)
