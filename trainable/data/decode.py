"""Turns an encoded image into bytes of the stored size."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

MODES = {1: "L", 3: "RGB"}
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
NPY_MAGIC = b"\x93NUMPY"


class BadImageError(Exception):
    """One image cannot be used; the message says why in a few words."""


def decode(data: bytes, *, channels: int, side: int, interpolation: str) -> Pixels:
    """The image as H×W×``channels`` with ``side`` as its shorter side, upright, aspect kept.

    Grey of 16 bits is scaled to 8, transparency is dropped, palettes and CMYK are converted. Any count of channels
    comes from `.npy` arrays H×W×C of uint8, 1 and 3 also from whatever PIL opens. Raises BadImageError for what is
    not an image, is truncated or has other channels.
    """
    resampling = RESAMPLING[interpolation]
    if data.startswith(NPY_MAGIC):
        return _resize_array(_load_array(data, channels=channels), side=side, resampling=resampling)
    if channels not in MODES:
        raise BadImageError(f"not a .npy array, which alone can hold {channels} channels")
    image = _load_image(data, mode=MODES[channels])
    pixels = np.asarray(image.resize(_stored_size(image.size, side=side), resampling))
    return pixels.reshape(*pixels.shape[:2], channels)


def _load_image(data: bytes, *, mode: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            return _to_eight_bits(upright).convert(mode)
    except (MemoryError, BadImageError):
        raise
    except UnidentifiedImageError:
        raise BadImageError("not an image") from None
    except Exception as error:  # PIL's decoders raise whatever a broken file leads them to
        raise BadImageError(" ".join(str(error).split())) from error


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadImageError("floating-point pixels have no known range")
    if not image.mode.startswith("I"):
        return image
    wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _load_array(data: bytes, *, channels: int) -> Pixels:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadImageError(" ".join(str(error).split())) from error
    array = array[..., np.newaxis] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels or array.size == 0:
        shape = "×".join(str(length) for length in array.shape)
        raise BadImageError(f"array {shape} of {array.dtype}, expected H×W×{channels} of uint8")
    return np.ascontiguousarray(array)


def _resize_array(array: Pixels, *, side: int, resampling: Image.Resampling) -> Pixels:
    size = _stored_size((array.shape[1], array.shape[0]), side=side)
    planes = [Image.fromarray(array[:, :, channel]).resize(size, resampling) for channel in range(array.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _stored_size(size: tuple[int, int], *, side: int) -> tuple[int, int]:
    width, height = size
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))
