"""Turns an encoded image into bytes of the stored size (the door of Pillow).

A copy of this file goes into every packaged model: nothing of the project may be imported here.
"""

import io
import warnings
from contextlib import nullcontext, suppress
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

with suppress(ImportError):  # the extra `heic`
    from pillow_heif import register_heif_opener

    register_heif_opener()

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of tags; what matters is a remark here

Pixels = NDArray[np.uint8]

MODES = {1: "L", 3: "RGB"}
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# By the EXIF's orientation. (Pillow's own function writes all tags anew, and fails where another one is wrong.)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What may be decoded, by content: raster formats whose decoders start no program and follow no reference.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "AVIF", "HEIF")
BACKGROUNDS = {"black": 0, "grey": 128, "white": 255}
MAX_PIXELS = 50_000_000
MAX_PROPORTION = 16  # longer side to shorter; the middle of a longer image is used
MANY_PIXELS = 16_000_000  # images above are decoded one at a time, so that threads share the memory for one
NPY_MAGIC = b"\x93NUMPY"

_OPENING = Lock()  # while Pillow's own limit of pixels, one for the whole process, gives way to that of the image
_DECODING_MANY = Lock()


class BadImageError(Exception):
    """One image cannot be used; the message says why in a few words, ``kind`` what to call it in a report."""

    def __init__(self, reason: str, *, kind: str = "bad_image") -> None:
        super().__init__(reason)
        self.kind = kind


class Loaded(NamedTuple):
    """An image of 8 bits a channel, upright: one for Pillow or an array H×W×C; ``remarks`` name what it is not as stored."""

    image: Image.Image | Pixels
    remarks: tuple[str, ...]


class Decoded(NamedTuple):
    """An image as H×W×C, and what was lost or guessed on the way."""

    pixels: Pixels
    remarks: tuple[str, ...]


def decode(
    data: bytes,
    *,
    channels: int,
    side: int,
    interpolation: str,
    max_pixels: int | None = None,
    bit_depth: int | str | None = None,
    background: str = "black",
) -> Pixels:
    """The image as H×W×``channels`` with ``side`` as its shorter side, upright, aspect kept up to ``MAX_PROPORTION``.

    Values of more than 8 bits are scaled by ``bit_depth``, the number of bits they use (16 without it), or `unit` for 0 to 1;
    transparent pixels are laid on ``background``, which `keep` leaves out; palettes and CMYK are converted. Any count of channels
    comes from `.npy` arrays H×W×C, 1 and 3 also from images. Raises BadImageError for what is not an image of
    ``FORMATS``, is truncated, has other channels or more than ``max_pixels`` pixels.
    """
    settings = {"max_pixels": max_pixels, "bit_depth": bit_depth, "background": background}
    return decode_with_remarks(data, channels=channels, side=side, interpolation=interpolation, **settings).pixels


def decode_with_remarks(data: bytes, *, channels: int, side: int, interpolation: str, **settings: Any) -> Decoded:
    """What :func:`decode` gives, with the remarks of :func:`load`."""
    loaded = load(data, channels=channels, **settings)
    resampling = RESAMPLING[interpolation]
    try:
        if isinstance(loaded.image, np.ndarray):
            return Decoded(_resize_array(loaded.image, side=side, resampling=resampling), loaded.remarks)
        pixels = np.asarray(loaded.image.resize(_stored_size(loaded.image.size, side=side), resampling))
    except MemoryError:
        raise BadImageError("needs more memory than there is") from None
    return Decoded(pixels.reshape(*pixels.shape[:2], channels), loaded.remarks)


def load(
    data: bytes,
    *,
    channels: int,
    max_pixels: int | None = None,
    bit_depth: int | str | None = None,
    background: str = "black",
) -> Loaded:
    """The image before it is resized, with what was lost or guessed on the way, keys of the data report's table."""
    limit = max_pixels or MAX_PIXELS
    try:
        if not data:
            raise BadImageError("empty, or cannot be read")
        if data.startswith(NPY_MAGIC):
            return _load_array(data, channels=channels, limit=limit, bit_depth=bit_depth)
        if channels not in MODES:
            raise BadImageError(f"not a .npy array, which alone can hold {channels} channels")
        with _open(data) as image:
            width, height = image.size
            if width * height > limit:
                raise _too_large(width, height, limit=limit)
            with _DECODING_MANY if width * height > MANY_PIXELS else nullcontext():
                return _load_image(image, mode=MODES[channels], bit_depth=bit_depth, background=background)
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError("needs more memory than there is") from None
    except UnidentifiedImageError:
        raise BadImageError("not an image") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise BadImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _too_large(width: int, height: int, *, limit: int) -> BadImageError:
    return BadImageError(f"{width}×{height} pixels, more than the {limit:,} that max_pixels allows", kind="too_large")


def _open(data: bytes) -> Image.Image:
    with _OPENING:
        pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=_available())
        finally:
            Image.MAX_IMAGE_PIXELS = pillows


def _available() -> list[str]:
    """The formats of ``FORMATS`` that are installed; Pillow refuses a name that it does not know."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _load_image(image: Image.Image, *, mode: str, bit_depth: int | str | None, background: str) -> Loaded:
    remarks = [] if image.format == "MPO" or not getattr(image, "is_animated", False) else ["frames"]
    is_wide = _is_wide(image)
    upright = _upright(image, remarks=remarks)
    middle = upright.crop(_middle(upright.size))
    if middle.size != upright.size:
        remarks.append("thin")
    if middle.mode == "F" or middle.mode.startswith("I"):
        middle = Image.fromarray(_to_eight_bits(np.asarray(middle), bit_depth=bit_depth, remarks=remarks))
    elif is_wide:
        remarks.append("sixteen_bit_colour")
    if middle.has_transparency_data:
        middle = _laid_on(middle, background=background, remarks=remarks)
    if middle.mode in ("CMYK", "P"):
        remarks.append({"CMYK": "cmyk", "P": "palette"}[middle.mode])
    return Loaded(middle.convert(mode), tuple(remarks))


def _is_wide(image: Image.Image) -> bool:
    """Whether Pillow is about to drop the lower half of 16 bits a colour."""
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _upright(image: Image.Image, *, remarks: list[str]) -> Image.Image:
    """The image turned as its EXIF says; as it is stored where that cannot be read while the pixels can."""
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a tag can be wrong in as many ways as a file
        remarks.append("exif")
        return image
    return image if turn is None else image.transpose(turn)


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of the middle that is at most ``MAX_PROPORTION`` times as long as wide."""
    longest = MAX_PROPORTION * min(size)
    left, top = (max(0, length - longest) // 2 for length in size)
    width, height = (min(length, longest) for length in size)
    return left, top, left + width, top + height


def _to_eight_bits(values: NDArray[Any], *, bit_depth: int | str | None, remarks: list[str]) -> Pixels:
    """Values of any number type as uint8; what lies outside their range is clipped."""
    is_real = values.dtype.kind == "f"
    if is_real and bit_depth is None:
        raise BadImageError("floating-point pixels have no known range; bit_depth says it, `unit` for 0 to 1")
    if is_real and not np.isfinite(values).all():
        raise BadImageError("holds pixels that are no number")
    highest = 1.0 if bit_depth == "unit" else float(2 ** int(bit_depth or 16) - 1)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > highest:
        remarks.append("clipped")
    if bit_depth is None:
        remarks.append("twelve_bit" if 255 < high < 4096 else "sixteen_bit")
    scaled = np.clip(values.astype(np.float32), 0, highest) * (255 / highest)
    pixels: Pixels = np.floor(scaled + 0.5).astype(np.uint8)
    return pixels


def _laid_on(image: Image.Image, *, background: str, remarks: list[str]) -> Image.Image:
    """The image without its transparency: pixels one can see through show the background."""
    whole = image.convert("RGBA")
    pixels = np.asarray(whole)
    unseen = pixels[..., 3] == 0
    if (pixels[..., 3] < 255).any():
        remarks.append("transparent")
    if unseen.any() and np.ptp(pixels[unseen][:, :3], axis=0).any():
        remarks.append("hidden_colours")
    if background == "keep":
        return whole.convert("RGB")
    behind = Image.new("RGBA", whole.size, (*[BACKGROUNDS[background]] * 3, 255))
    return Image.alpha_composite(behind, whole).convert("RGB")


def _load_array(data: bytes, *, channels: int, limit: int, bit_depth: int | str | None) -> Loaded:
    remarks: list[str] = []
    _check_header(data, limit=limit)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    array = array[..., np.newaxis] if array.ndim == 2 else array
    is_number = (
        array.dtype == np.uint8 or array.dtype == np.uint16 or (bit_depth is not None and array.dtype.kind in "uif")
    )
    if array.ndim != 3 or array.shape[2] != channels or array.size == 0 or not is_number:
        shape = "×".join(str(length) for length in array.shape)
        hint = (
            ""
            if is_number or array.dtype.kind not in "uif"
            else "; bit_depth says the range of others, `unit` for 0 to 1"
        )
        raise BadImageError(f"array {shape} of {array.dtype}, expected H×W×{channels} of uint8{hint}")
    left, top, right, bottom = _middle((array.shape[1], array.shape[0]))
    middle = array[top:bottom, left:right]
    if middle.shape != array.shape:
        remarks.append("thin")
    if middle.dtype != np.uint8:
        middle = _to_eight_bits(middle, bit_depth=bit_depth, remarks=remarks)
    return Loaded(np.ascontiguousarray(middle), tuple(remarks))


def _check_header(data: bytes, *, limit: int) -> None:
    """Hold what an array says of itself against how much there is, before memory is taken for it."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size > len(data) - file.tell():
        raise BadImageError("the array is cut off")
    if len(shape) >= 2 and shape[0] * shape[1] > limit:
        raise _too_large(shape[1], shape[0], limit=limit)


def _resize_array(array: Pixels, *, side: int, resampling: Image.Resampling) -> Pixels:
    size = _stored_size((array.shape[1], array.shape[0]), side=side)
    planes = [Image.fromarray(array[:, :, channel]).resize(size, resampling) for channel in range(array.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _stored_size(size: tuple[int, int], *, side: int) -> tuple[int, int]:
    width, height = size
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))
