"""What an epoch's time is spent on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from trainable.prefix.outputs import Spent

Item = TypeVar("Item")
Kind = Literal["opening", "images", "evaluation"]


@dataclass(frozen=True)
class Clock:
    """Seconds of an epoch by what they were spent on: opening what frozen layers made, getting images, evaluating."""

    seconds: dict[Kind, float] = field(default_factory=dict)

    @contextmanager
    def running(self, kind: Kind) -> Iterator[None]:
        """Count the time inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - started

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, with the time that getting each of them takes counted as that of images."""
        while True:
            with self.running("images"):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def take(self) -> dict[Kind, float]:
        """The seconds since this was asked last."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


def usage(seconds: float, *, spent: dict[Kind, float], trained: Spent, measured: Spent) -> dict[str, float]:
    """The ``usage/…_seconds`` of an epoch that took ``seconds``: parts that do not overlap, of which nothing is counted twice.

    ``trained`` and ``measured`` are what frozen layers took in training and in evaluation.
    """
    opening, images, evaluation = (spent.get(kind, 0.0) for kind in ("opening", "images", "evaluation"))
    frozen = trained.computing + measured.computing
    waiting = trained.waiting + measured.waiting
    evaluating = max(0.0, evaluation - measured.computing - measured.waiting)
    views = max(0.0, opening + images - trained.computing - trained.waiting)
    return {
        "usage/seconds": seconds,
        "usage/prefix_seconds": frozen,
        "usage/waiting_seconds": waiting,
        "usage/view_seconds": views,
        "usage/evaluation_seconds": evaluating,
        "usage/training_seconds": max(0.0, seconds - frozen - waiting - views - evaluating),
        "usage/prefix_saved_seconds": trained.saved + measured.saved,
    }
