import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from trainable.data.decode import MAX_PROPORTION, BadImageError, decode, load

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


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


WIDE_PNG = (  # 8×8 of 16 bits a colour, which Pillow cannot write
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + b"\x80\x01" * 24 for _ in range(8))))
    + chunk(b"IEND", b"")
)


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


def test_palette_and_cmyk_become_colour():
    colour = (200, 30, 60)
    palette = Image.new("RGB", (8, 8), colour).quantize()
    assert (decode(encoded(palette), channels=3, **SETTINGS) == colour).all()
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "TIFF")
    assert (decode(cmyk, channels=3, **SETTINGS) == 255).all()


@pytest.mark.parametrize(("background", "seen"), [("black", 0), ("grey", 128), ("white", 255)])
def test_what_one_can_see_through_shows_the_background_and_not_the_colour_beneath(background, seen):
    pixels = noise(8, 8, 4)
    pixels[:4, :, 3], pixels[4:, :, 3] = 0, 255
    for kind in ("PNG", "WEBP"):
        data = encoded(Image.fromarray(pixels), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        decoded = decode(data, channels=3, background=background, **SETTINGS)
        assert (decoded[:4] == seen).all()
        assert np.array_equal(decoded[4:], pixels[4:, :, :3])
        assert load(data, channels=3).remarks == ("transparent", "hidden_colours")
    assert np.array_equal(decode(data, channels=3, background="keep", **SETTINGS), pixels[..., :3])


def test_a_transparent_palette_entry_and_one_alpha_for_all_are_laid_on_the_background_too():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 30, 60] * 256)
    assert (decode(encoded(palette, transparency=0), channels=3, background="white", **SETTINGS) == 255).all()
    half = Image.new("LA", (8, 8), (200, 128))
    assert decode(encoded(half), channels=1, **SETTINGS)[0, 0, 0] == 100
    assert load(encoded(half), channels=1).remarks == ("transparent",)
    assert load(encoded(Image.new("RGBA", (8, 8), (1, 2, 3, 255))), channels=3).remarks == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "npy"])
def test_twelve_bits_in_sixteen_are_noticed_and_fill_the_range_where_it_is_said_how_many_they_are(kind):
    wide = np.full((8, 8), 4095, np.uint16)
    wide[0, :2] = [0, 2048]
    data = as_npy(wide) if kind == "npy" else encoded(Image.fromarray(wide), kind)
    assert load(data, channels=1).remarks == ("twelve_bit",)
    assert decode(data, channels=1, **SETTINGS).max() == 16
    said = load(data, channels=1, bit_depth=12)
    assert (said.remarks, np.asarray(said.image).squeeze()[0, :3].tolist()) == ((), [0, 128, 255])
    assert load(data, channels=1, bit_depth=10).remarks == ("clipped",)


def test_sixteen_bits_a_colour_are_told_since_the_lower_eight_are_lost():
    assert load(encoded(Image.fromarray(np.full((8, 8), 65535, np.uint16))), channels=1).remarks == ("sixteen_bit",)
    header = b"P6 2 2 65535\n" + b"\x80\x01" * 12
    assert decode(header, channels=3, **SETTINGS)[0, 0].tolist() == [128, 128, 128]
    assert load(WIDE_PNG, channels=3).remarks == ("sixteen_bit_colour",)


def test_floating_point_has_a_range_where_one_is_given():
    data = encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")
    assert (decode(data, channels=1, bit_depth="unit", **SETTINGS) == 128).all()
    assert (decode(as_npy(np.full((8, 8), 2047.5)), channels=1, bit_depth=12, **SETTINGS) == 128).all()
    with pytest.raises(BadImageError, match="no number"):
        decode(as_npy(np.full((8, 8), np.nan)), channels=1, bit_depth="unit", **SETTINGS)


def test_thirty_two_bits_that_do_not_fit_into_sixteen_are_clipped_and_told():
    data = encoded(Image.fromarray(np.full((8, 8), 1_000_000, np.int32)), "TIFF")
    assert load(data, channels=1).remarks == ("clipped", "sixteen_bit")
    assert (decode(data, channels=1, **SETTINGS) == 255).all()


def test_of_several_frames_the_first_is_used_and_it_is_told():
    first, second = Image.new("L", (8, 8), 3), Image.new("L", (8, 8), 90)
    for kind in ("GIF", "TIFF", "PNG"):
        data = encoded(first, kind, save_all=True, append_images=[second])
        assert "frames" in load(data, channels=1).remarks
        assert (decode(data, channels=1, **SETTINGS) == 3).all()


def test_a_wrong_tag_beside_the_orientation_costs_neither_the_image_nor_the_turn():
    pixels = noise(8, 8, 3)
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 4, b"96\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    data = encoded(Image.fromarray(pixels), exif=exif)  # the resolution is text where a number belongs
    assert np.array_equal(decode(data, channels=3, **SETTINGS), np.rot90(pixels, -1))
    assert load(data, channels=3).remarks == ()


def test_an_exif_that_cannot_be_read_costs_no_image():
    pixels = noise(8, 8, 3)
    data = encoded(Image.fromarray(pixels), exif=b"Exif\0\0no tags at all")
    assert np.array_equal(decode(data, channels=3, **SETTINGS), pixels)
    assert load(data, channels=3).remarks == ("exif",)


@pytest.mark.parametrize("size", [(1, 12_000), (12_000, 1)])
def test_of_a_very_thin_image_the_middle_is_used_in_no_more_memory_than_it_needs(size):
    image = Image.new("L", size, 9)
    image.putpixel((size[0] // 2, size[1] // 2), 200)
    for data in (encoded(image), as_npy(np.asarray(image))):
        pixels = decode(data, channels=1, side=32, interpolation="nearest")
        assert max(pixels.shape) == 32 * MAX_PROPORTION
        assert set(np.unique(pixels)) == {9, 200}
        assert load(data, channels=1).remarks == ("thin",)


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded_and_the_limit_can_be_raised():
    data = encoded(Image.new("1", (13_000, 13_000)))  # 169 million pixels in 20 kB
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError, match="13000×13000 pixels, more than the 50,000,000"):
            decode(data, channels=1, **SETTINGS)
        assert decode(data, channels=1, max_pixels=200_000_000, **SETTINGS).shape == (8, 8, 1)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_array_that_claims_more_than_it_holds_takes_no_memory():
    header = as_npy(np.zeros((1, 1, 3), np.uint8)).replace(b"(1, 1, 3), }", b"(1000000, 1000000, 3), }")
    with pytest.raises(BadImageError, match="cut off"):
        decode(header[:128], channels=3, **SETTINGS)


def test_the_content_decides_and_what_would_start_a_program_is_no_image(tmp_path, monkeypatch):
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(BadImageError, match="not an image"):
        decode(postscript, channels=3, **SETTINGS)
    assert not (tmp_path / "called").exists()


def test_heic_and_avif_are_images():
    if "HEIF" in Image.SAVE:
        assert decode(encoded(Image.new("RGB", (64, 64), (0, 0, 0)), "HEIF"), channels=3, **SETTINGS).shape == (8, 8, 3)
    assert decode(encoded(Image.new("RGB", (64, 64), (0, 0, 0)), "AVIF"), channels=3, **SETTINGS).shape == (8, 8, 3)


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
        (b"", 3, "empty, or cannot be read"),
        (b"no image at all", 3, "not an image"),
        (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:700], 3, "truncated"),
        (encoded(Image.fromarray(noise(64, 64, 3)))[:700], 3, "truncated"),
        (encoded(Image.new("F", (8, 8)), "TIFF"), 3, "floating-point"),
        (encoded(Image.new("RGB", (8, 8))), 5, "not a .npy array, which alone can hold 5 channels"),
        (as_npy(noise(8, 8, 4)), 5, "array 8×8×4 of uint8, expected H×W×5 of uint8"),
        (
            as_npy(noise(8, 8, 3) / 1.0),
            3,
            "array 8×8×3 of float64, expected H×W×3 of uint8; bit_depth says the range of others",
        ),
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
