"""The encoded images of a split, as their files hold them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blake3 import blake3

from trainable.config.trial import TrialConfig
from trainable.data.fingerprint import id_of, read_or_empty
from trainable.data.image_guard import ImagesChangedError
from trainable.data.pack import Pack, open_pack
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import Sample
from trainable.model.backbone import input_spec


@dataclass(frozen=True)
class EncodedImage:
    """One image: the id of its content, the name of its class, a call that reads its bytes."""

    sample_id: int
    label: str
    read_bytes: Callable[[], bytes]


def fingerprint_now(config: TrialConfig) -> str:
    """The fingerprint of the images as they lie there now. Raises UserError for data that cannot be used."""
    return str(_pack(config).fingerprint)


def encoded_images(config: TrialConfig, *, split: str) -> list[EncodedImage]:
    """The images of a split whose labels are known, in the pack's order. Raises UserError for data that cannot be used.

    Reading one whose file holds something else by then is an ImagesChangedError.
    """
    pack = _pack(config)
    samples = {sample.name: sample for sample in read_source(config.data).every_sample}
    images = []
    for row in pack.indices(split):
        name, sample_id = str(pack.names[row]), int(pack.sample_ids[row])
        read = partial(_read, samples.get(name), name=name, sample_id=sample_id)
        images.append(EncodedImage(sample_id, pack.classes[pack.labels[row]], read))
    return images


def _read(sample: Sample | None, *, name: str, sample_id: int) -> bytes:
    content = b"" if sample is None else read_or_empty(sample)
    if id_of(blake3(content).digest()) != sample_id:
        raise ImagesChangedError(f"data.path: {name!r} is not the image any more that it was a moment ago")
    return content


def _pack(config: TrialConfig) -> Pack:
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    return open_pack(config.data, spec)
