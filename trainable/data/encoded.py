"""The encoded images of a split, as their files hold them."""

from collections.abc import Callable
from dataclasses import dataclass

from trainable.config import TrialConfig
from trainable.data.pack import Pack, open_pack
from trainable.data.sources import read_source
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
    """The images of a split whose labels are known, in the pack's order. Raises UserError for data that cannot be used."""
    pack = _pack(config)
    read = {sample.name: sample.read_bytes for sample in read_source(config.data).every_sample}
    return [
        EncodedImage(int(pack.sample_ids[row]), pack.classes[pack.labels[row]], read[str(pack.names[row])])
        for row in pack.indices(split)
    ]


def _pack(config: TrialConfig) -> Pack:
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    return open_pack(config.data, spec)
