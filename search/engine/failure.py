"""How a leg ended without a report, and when that is no longer the trial's own affair."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from search.ledger.trials import Trial

FAILED = "failed"  # how the reason of a trial begins that failed, or lost its worker, too often
FAILURES_IN_A_ROW = 20  # after which a search is over that has no number of trials
ALIKE_IN_A_ROW = 3  # trials that end by the same error, after which no other is tried
LONGEST_DETAILS = 8000  # characters of a traceback that are kept, its end


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a leg ended: in one line, and with the traceback where there is one.

    ``of_machine`` is what took the worker from outside, such as a node that was lost or a host without memory; else it is an
    error that the trial's own code raised.
    """

    reason: str
    of_machine: bool
    details: str = ""

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for the ledger."""
        return asdict(self) | {"details": self.details[-LONGEST_DETAILS:]}


def was_lost(trial: Trial) -> bool:
    """Whether a trial failed for its workers, not for what it is."""
    lost = trial.attempts + trial.losses > 0
    return trial.state == "FAILED" and lost and (trial.reason or "").startswith(FAILED)


def fail_alike(trials: Sequence[Trial]) -> list[Trial]:
    """The latest trials to end, where so many in a row have ended by the same error of their own; else none."""
    ended = sorted((trial for trial in trials if trial.ended is not None), key=lambda trial: trial.ended or 0)
    last = ended[-ALIKE_IN_A_ROW:]
    errors = {
        trial.failure.get("reason") if was_lost(trial) and not trial.failure.get("of_machine") else None
        for trial in last
    }
    return last if len(last) == ALIKE_IN_A_ROW and len(errors) == 1 and None not in errors else []


def fail_endlessly(trials: Sequence[Trial]) -> bool:
    """Whether the latest trials, many in a row, failed without an epoch: such spend no budget, so none would end the search.

    Those at work in their first epoch are not looked at.
    """
    decided = (trial for trial in reversed(trials) if trial.is_searched and (trial.epochs or trial.state != "RUNNING"))
    failed = [trial.state == "FAILED" and not trial.epochs for trial in islice(decided, FAILURES_IN_A_ROW)]
    return len(failed) == FAILURES_IN_A_ROW and all(failed)
