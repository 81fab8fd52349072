"""Says that work waits for CPUs and GPUs, so that nobody takes it for work that is slow."""

import logging
import time
from collections.abc import Callable

from search.tune.cluster import total_resources
from search.tune.place import Place

SECONDS_BETWEEN = 30.0
logger = logging.getLogger(__name__)


class Waiting:
    """Tells every half minute for what work waits, of which ``place`` says what it takes; ``clock`` gives seconds."""

    def __init__(self, place: Callable[[], Place], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._told: float | None = None

    def look(self, waits: bool) -> None:
        """Take note of whether it waits now."""
        if not waits:
            self._told = None
        elif self._told is None:
            self._told = self._clock()
        elif self._clock() - self._told >= SECONDS_BETWEEN:
            self._told = self._clock()
            logger.warning(waiting_text(self._place()))


def waiting_text(place: Place) -> str:
    """Say what is asked for and what there is."""
    total = total_resources()
    return (
        f"waiting for room: asks for {place.cpu:g} CPUs and {place.gpu:g} GPUs, the cluster has {total['cpu']:g} and "
        f"{total['gpu']:g}, free or not; Ctrl-C ends the search"
    )


def never_fits(place: Place) -> bool:
    """Whether the cluster as it is now could not hold the work even if it did nothing else."""
    total = total_resources()
    return place.cpu > total["cpu"] or place.gpu > total["gpu"]
