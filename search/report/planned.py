"""What a plan foresaw of a search beside what it took, and what that tells the next plan on the same machine."""

import json
import math
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.engine.clock import spent
from search.ledger.files import PLAN
from search.ledger.notes import made
from search.ledger.stored import SPEC_FILE, is_finished, open_ledger
from search.ledger.trials import Trial
from search.report.spending import duration
from search.space.spec import SearchSpec
from trainable.atomic import make_private_folder, write_beside
from trainable.errors import OutageError, UserError
from trainable.json_text import to_json


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What was foreseen: ``epochs`` of trials, and the seconds by the clock of all the search, ``least`` to ``most``.

    ``of`` says which space it was, with its number of trials and budget, ``host`` on which machine.
    """

    of: str
    host: str
    epochs: int
    least: float
    most: float

    @property
    def seconds_an_epoch(self) -> float:
        """By the clock, of all the search: the geometric mean of the range's ends."""
        return math.sqrt(self.least * self.most) / self.epochs


def keep_plan(plan: Mapping[str, Any], *, spec: SearchSpec, folder: Path) -> None:
    """Keep a plan in the folder of the search that it is of, unless that has begun, or nothing can be written there."""
    hours = plan["hours"]
    epochs = max(1, plan["epochs"] - plan["confirm_epochs"])
    planned = Planned(
        of=_what(spec),
        host=socket.gethostname(),
        epochs=epochs,
        least=3600 * hours["least"],
        most=3600 * hours["most"],
    )
    if not (folder / SPEC_FILE).exists():
        with suppress(OSError):
            make_private_folder(folder)
            with write_beside(folder / PLAN) as file:
                file.write(to_json(asdict(planned)).encode())


def plan_error(folder: Path, *, spec: SearchSpec, trials: Sequence[Trial], seconds: float) -> dict[str, Any] | None:
    """How far off the plan of a search was that has taken so many seconds; None without a plan of this very search.

    ``ratio`` is the seconds by the clock for each epoch of the trials, over those that were foreseen.
    """
    planned = _read(folder / PLAN)
    epochs = sum(trial.last_epoch for trial in trials if trial.is_searched)
    if planned is None or planned.of != _what(spec) or not epochs or not seconds:
        return None
    return {
        "planned": asdict(planned),
        "epochs": epochs,
        "seconds": seconds,
        "ratio": seconds / epochs / planned.seconds_an_epoch,
    }


def plan_error_line(error: Mapping[str, Any] | None) -> str:
    """``4.0 to 9.2 min for 54 epochs; it took 14 min for 61, 1.4 times as long an epoch``; empty where there is nothing."""
    if error is None:
        return ""
    planned = error["planned"]
    return (
        f"{duration(planned['least'])} to {duration(planned['most'])} for {planned['epochs']} epochs; it took "
        f"{duration(error['seconds'])} for {error['epochs']}, {error['ratio']:.2g} times as long an epoch"
    )


def earlier_errors(searches: Path) -> list[float]:
    """The ratios of :func:`plan_error` of the finished searches in a folder that were planned on this machine."""
    ratios = []
    for path in sorted(searches.glob(f"*/{PLAN}")):
        planned = _read(path)
        if planned is None or planned.host != socket.gethostname() or not (path.parent / SPEC_FILE).is_file():
            continue
        with suppress(UserError, OutageError):  # one that is broken, or whose database does not answer
            spec, ledger = open_ledger(path.parent)
            trials = ledger.trials()
            error = plan_error(path.parent, spec=spec, trials=trials, seconds=spent(ledger.notes.stretches))
            if error is not None and is_finished(ledger, trials=trials):
                ratios.append(error["ratio"])
    return ratios


def learnt_range(plan: Mapping[str, Any], *, ratios: Sequence[float]) -> dict[str, Any] | None:
    """What a plan comes to if it is as far off as earlier ones: hours, or the epochs of a search that has its time."""
    if not ratios:
        return None
    ends = min(ratios), max(ratios)
    found: dict[str, Any] = {"searches": len(ratios), "ratios": list(ends)}
    if plan["asked_seconds"] is None:
        middle = math.sqrt(plan["hours"]["least"] * plan["hours"]["most"])
        return found | {"hours": [middle * ratio for ratio in ends]}
    return found | {"epochs": [round(plan["epochs"] / ratio) for ratio in reversed(ends)]}


def learnt_line(learnt: Mapping[str, Any]) -> str:
    """``3 here took 0.9 to 1.6 times as long an epoch as planned; so this one 9.0 to 16 min``."""
    ratios = _between([f"{ratio:.2g}" for ratio in learnt["ratios"]])
    if "hours" in learnt:
        comes_to = _between([duration(3600 * hours) for hours in learnt["hours"]])
    else:
        comes_to = f"{_between([str(epochs) for epochs in learnt['epochs']])} epochs"
    return f"{learnt['searches']} here took {ratios} times as long an epoch as planned; so this one {comes_to}"


def _between(ends: Sequence[str]) -> str:
    least, most = ends
    return least if least == most else f"{least} to {most}"


def _what(spec: SearchSpec) -> str:
    budget = spec.search.budget.model_dump(exclude_none=True)
    return to_json({"space": spec.content_hash(), "trials": spec.search.trials, "budget": budget}, sort_keys=True)


def _read(path: Path) -> Planned | None:
    """What a file says; None where it is not there, or is none of ours."""
    try:
        return made(Planned, json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError, TypeError):
        return None
