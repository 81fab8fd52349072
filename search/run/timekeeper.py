"""Notes in the ledger when a search was at work, so that its time counts over restarts."""

import time
from collections.abc import Callable, Mapping

from search.engine.clock import Clock, seconds_to_next_note, spent, stretches_before
from search.engine.listeners import Listener, Outcome
from search.ledger.ledger import Ledger
from search.ledger.notes import DataFacts, Stretch
from search.space.final import finish_steps, makes_soup, num_finish_passes, num_turned
from search.space.spec import SearchSpec

_OFFSET = time.time() - time.monotonic()


def steady_now() -> float:
    """Seconds since 1970 that nobody sets back while this process lives."""
    return _OFFSET + time.monotonic()


class Timekeeper(Listener):
    """Knows how long a search has been at work, in this process since ``began`` and in those before it.

    The length of this process's stretch is noted when it has grown by a hundredth, and by ten seconds: of a process that is
    killed no more is lost, and the notes of a day are some hundred.
    """

    def __init__(self, ledger: Ledger, *, began: float, now: Callable[[], float]) -> None:
        self._ledger, self._began, self._now = ledger, began, now
        self._before = stretches_before(ledger.notes.stretches, trials=ledger.trials())
        self._note()

    def spent_seconds(self) -> float:
        """How long the search has been at work in all."""
        return spent(self._before) + self._now() - self._began

    def pulse(self) -> None:
        """Note the time where the last note is too old."""
        since = self._now() - self._noted
        if since >= seconds_to_next_note(self._noted - self._began):
            self._note()

    def end(self, ledger: Ledger, *, outcome: Outcome) -> None:
        """Note the time as it is."""
        self._note()

    def _note(self) -> None:
        self._noted = self._now()
        stretch = Stretch(began=self._began, seconds=self._noted - self._began)
        self._ledger.note(stretches=(*self._before, stretch))


def clock_of(spec: SearchSpec, *, data: DataFacts, timekeeper: Timekeeper) -> Clock | None:
    """The clock that a search's budget asks for; None where it names no time."""
    seconds = spec.search.budget.seconds
    if seconds is None:
        return None
    num_averaged = spec.soup if makes_soup(spec) else 0
    num_images = {split: sum(counts.values()) for split, counts in data.counts.items()}
    seen = num_images.get("train", 0) + num_images.get("val", 0)
    return Clock(
        asked_seconds=seconds,
        spent_seconds=timekeeper.spent_seconds,
        num_evaluations=num_averaged + 2 + len(spec.baselines) + num_finish_passes(spec),
        pass_share=_shown_once_more(spec, num_images=num_images) / max(1, seen),
    )


def _shown_once_more(spec: SearchSpec, *, num_images: Mapping[str, int]) -> int:
    """How many images pass the whole network when every trial is decided: those of the test, and views of both."""
    turned = num_turned(spec) if "views" in finish_steps(spec) else 0
    return (1 + turned) * num_images.get("test", 0) + turned * num_images.get("val", 0)
