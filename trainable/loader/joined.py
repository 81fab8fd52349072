"""The images of two packs as one."""

import numpy as np
from numpy.typing import NDArray

from trainable.data.decode import Pixels
from trainable.data.pack import Pack


class Joined:
    """The images of two packs: those of ``first`` under their own numbers, then those of ``second`` with these ``labels``."""

    def __init__(self, first: Pack, second: Pack, *, labels: NDArray[np.int64]) -> None:
        self._packs = (first, second)
        self.labels: NDArray[np.int64] = np.concatenate([first.labels, labels])
        self.sample_ids: NDArray[np.uint64] = np.concatenate([first.sample_ids, second.sample_ids])

    def image(self, index: int) -> Pixels:
        """H×W×C, a read-only view of a file."""
        first, second = self._packs
        return first.image(index) if index < len(first) else second.image(index - len(first))
