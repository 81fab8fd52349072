"""Decodes some images of a data set for any size, without a pack of that size."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from trainable.config.trial import DataConfig
from trainable.cpus import usable_cpus
from trainable.data.decode import Pixels, decode
from trainable.data.fingerprint import id_of
from trainable.data.image_guard import ImagesChangedError
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import Sample


class SomeImages:
    """Images of a ``pack`` read anew where they lie: a few thousand of a hundred thousand need no pack of their own size."""

    def __init__(self, pack: Pack, *, config: DataConfig) -> None:
        self._pack, self._config = pack, config
        self._samples: dict[str | None, list[Sample]] = defaultdict(list)
        for sample in read_source(config).every_sample:
            self._samples[sample.name].append(sample)

    def decoded(self, rows: NDArray[np.int64], *, spec: InputSpec) -> list[Pixels]:
        """The images of these rows, as the pack for ``spec`` would hold them.

        Raises ImagesChangedError for a file that is gone or another one than it was.
        """

        def read(row: int) -> Pixels:
            data = self._bytes(row)
            decoding = self._config.decoding
            return decode(data, side=spec.stored_side, interpolation=spec.interpolation, **decoding)

        with ThreadPoolExecutor(usable_cpus()) as pool:
            return list(pool.map(read, rows.tolist()))

    def _bytes(self, row: int) -> bytes:
        """The encoded image; several data sets may have names in common, but not the same image under them."""
        name, wanted = self._pack.names[row], int(self._pack.sample_ids[row])
        for encoded in _each(self._samples[name]):
            if id_of(blake3(encoded).digest()) == wanted:
                return encoded
        raise ImagesChangedError(f"data.path: {name!r} is gone or another image than when this search began")


def _each(samples: Sequence[Sample]) -> list[bytes]:
    """What can be read of these files."""
    encoded = []
    for sample in samples:
        try:
            encoded.append(sample.read_bytes())
        except OSError:
            continue
    return encoded
