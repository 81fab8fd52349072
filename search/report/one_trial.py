"""One trial for people: its configuration, its curve, why it ended, where its files are."""

from pathlib import Path
from typing import Any

from search.ledger.failures import failure_text
from search.ledger.files import best_checkpoint, checkpoint_folder
from search.ledger.stored import open_ledger
from search.ledger.trials import Trial
from search.space.paths import flatten
from search.space.spec import SearchSpec
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
        "searched": {path: trial.overrides.get(path, value) for path, value in trial.params.items()},
        "overrides": dict(trial.overrides),
        "config": flatten(spec.config_of(trial)),
        "attempts": trial.attempts,
        "losses": trial.losses,
        "failure": dict(trial.failure) or None,
        "checkpoints": str(checkpoint_folder(folder, number)),
        "best_checkpoint": None if checkpoint is None else str(checkpoint),
        "lines": trial_lines(trial, spec=spec, folder=folder),
    }


def trial_lines(trial: Trial, *, spec: SearchSpec, folder: Path) -> list[str]:
    """A trial as lines for a terminal."""
    metric, best = spec.search.metric, trial.best(spec.search.metric)
    lines = [f"trial {trial.number} of {spec.search.name}: {trial.state.lower()}, by {trial.origin}"]
    if trial.reason:
        lines.append(f"reason: {trial.reason}")
    lines.append("no epoch is recorded" if best is None else f"best {metric} {best:.4f}")
    lines += [f"  epoch {epoch}: {value:.4f}" for epoch, value in trial.values(metric).items()]
    lines += [f"  {path}: {value}" for path, value in sorted({**trial.params, **trial.overrides}.items())]
    if trial.failure:
        lines += [f"failure: {failure_text(trial)}", *trial.failure["details"].rstrip().splitlines()]
    lines.append(f"files: {checkpoint_folder(folder, trial.number)}")
    return lines
