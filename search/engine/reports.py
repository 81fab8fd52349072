"""What a worker says of a trial after each step: one of five reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """The network as it is before its first epoch, by names of ``metrics.MEASURES``."""

    values: Mapping[str, float]


@dataclass(frozen=True)
class EpochReport:
    """Epoch ``number``, counted from 1, is trained and saved; ``ended`` says why it was the trial's last, or is None."""

    number: int
    metrics: Mapping[str, float]
    ended: str | None


@dataclass(frozen=True)
class Ended:
    """There was nothing left to train."""

    reason: str


@dataclass(frozen=True)
class Infeasible:
    """The configuration cannot be trained: it diverges, or does not fit into memory."""

    reason: str


@dataclass(frozen=True)
class StopSearch:
    """No trial can go on before somebody mends what is said here."""

    reason: str


Report = Measured | EpochReport | Ended | Infeasible | StopSearch
KEY = "report"
KINDS: dict[str, type[Report]] = {
    kind.__name__: kind for kind in (Measured, EpochReport, Ended, Infeasible, StopSearch)
}


def plain_report(report: Report) -> dict[str, Any]:
    """Give a report as plain data, as which it travels from worker to driver.

    It lies in a list, since Ray Tune flattens every mapping inside a mapping.
    """
    return {KEY: [{"kind": type(report).__name__, **asdict(report)}]}


def read_report(result: Mapping[str, Any]) -> Report:
    """Make the report again of which :func:`plain_report` made plain data."""
    fields = dict(result[KEY][0])
    return KINDS[fields.pop("kind")](**fields)
