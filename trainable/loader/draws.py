"""Random numbers of images by counters: each is a function of what it is drawn for."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainable.randomness import derive

STRIDE = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: the counters of SplitMix64 (Steele et al. 2014)
ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


@dataclass(frozen=True)
class Draws:
    """What is drawn for the view ``number`` of N images; the same for an image wherever and with whomever it is."""

    seed: int
    sample_ids: NDArray[np.uint64]
    number: int

    def __len__(self) -> int:
        return len(self.sample_ids)

    def uniform(self, purpose: str, count: int) -> NDArray[np.float64]:
        """N×count numbers of [0, 1) for a purpose, those of an image in a row."""
        start = np.uint64(derive(self.seed, "view", self.number, purpose))
        of_images = _mixed(_mixed(self.sample_ids ^ start) + start)
        counters = np.arange(1, count + 1, dtype=np.uint64) * STRIDE
        bits = _mixed(of_images[:, None] + counters) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53

    def chance(self, purpose: str, probability: float) -> NDArray[np.bool_]:
        """N times yes or no."""
        drawn: NDArray[np.bool_] = self.uniform(purpose, 1)[:, 0] < probability
        return drawn

    def below(self, purpose: str, limit: int, count: int = 1) -> NDArray[np.int64]:
        """N×count whole numbers from 0 on below ``limit``."""
        return (self.uniform(purpose, count) * limit).astype(np.int64)


def draws_for(sample_ids: Iterable[int], *, seed: int, number: int) -> Draws:
    """The draws for these images."""
    return Draws(seed, np.array([int(sample_id) for sample_id in sample_ids], dtype=np.uint64), number)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a number changes half of the result's."""
    for shift, factor in ROUNDS:
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> np.uint64(31))
