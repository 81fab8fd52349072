"""One trial for people: its configuration, its curve, why it ended, where its files are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.ledger.failures import failure_text
from search.ledger.files import best_checkpoint, checkpoint_folder
from search.ledger.stored import open_ledger
from search.space.paths import flatten
from trainable.errors import UserError


def trial_data(folder: Path, *, number: int) -> dict[str, Any]:
    """All that the ledger knows of a trial, as plain data. Raises UserError for a number that no trial has."""
    spec, ledger = open_ledger(folder)
    trials = ledger.trials()
    if not 0 <= number < len(trials):
        known = f"0 to {len(trials) - 1}" if trials else "none yet"
        raise UserError(f"--trial: there is no trial {number} in {spec.search.name}; there are {known}")
    trial, metric = trials[number], spec.search.metric
    checkpoint = best_checkpoint(folder, trial, metric=metric)
    return {
        "search": spec.search.name,
        "trial": number,
        "state": trial.state,
        "reason": trial.reason,
        "origin": trial.origin,
        "metric": metric,
        "best": trial.best(metric),
        "values": {str(epoch): value for epoch, value in trial.values(metric).items()},
        "seconds": round(trial.seconds, 1),
        "searched": trial.searched,
        "overrides": dict(trial.overrides),
        "config": flatten(spec.config_of(trial)),
        "attempts": trial.attempts,
        "losses": trial.losses,
        "failure": dict(trial.failure) or None,
        "checkpoints": str(checkpoint_folder(folder, number)),
        "best_checkpoint": None if checkpoint is None else str(checkpoint),
        "failure_text": failure_text(trial) if trial.failure else None,
    }


def trial_lines(data: Mapping[str, Any]) -> list[str]:
    """What :func:`trial_data` says, as lines for a terminal."""
    metric, best = data["metric"], data["best"]
    lines = [f"trial {data['trial']} of {data['search']}: {data['state'].lower()}, by {data['origin']}"]
    if data["reason"]:
        lines.append(f"reason: {data['reason']}")
    lines.append("no epoch is recorded" if best is None else f"best {metric} {best:.4f}")
    lines += [f"  epoch {epoch}: {value:.4f}" for epoch, value in data["values"].items()]
    lines += [f"  {path}: {value}" for path, value in sorted({**data["searched"], **data["overrides"]}.items())]
    if data["failure"]:
        lines += [f"failure: {data['failure_text']}", *data["failure"]["details"].rstrip().splitlines()]
    lines.append(f"files: {data['checkpoints']}")
    return lines
