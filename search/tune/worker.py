"""What Ray runs on a worker: one warm process that takes trial after trial.

Only plain dicts come in and go out; what a trial leaves behind is its checkpoints.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from search.tune.place import Place

RESOURCES = "resources"  # in the settings of a leg: what it occupies, by Ray's names


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Trains one leg of a trial an epoch a step; every epoch is saved before it is reported."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the leg that ``config`` describes (see :func:`leg_settings`)."""
        from search.tune.leg import WorkerLeg  # what computes is loaded on workers alone

        self._leg = WorkerLeg(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next leg in this process."""
        self._leg.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Report what the network takes, where asked; then train, save and report one epoch, or say why there is none."""
        return self._leg.step()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the leg's own checkpoints are the state."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """Let the trial go."""
        self._leg.close()


def leg_settings(
    *, trial: dict[str, Any], folder: Path, start: int, place: Place, measure: Sequence[str] = ()
) -> dict[str, Any]:
    """Say as plain data what a worker needs for a leg.

    Configuration, checkpoint folder, the epoch it stands at, its place, what it is to measure before it trains.
    """
    of_place = {
        name: getattr(place, name) for name in ("gpu", "packed", "threads", "fingerprints", "directory", "depths")
    }
    return {"trial": trial, "start": start, "folder": str(folder), "measure": list(measure), **of_place}


def occupied(settings: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """Say what a leg occupies, by its settings: decided when it is handed out, since the cluster may have grown."""
    return tune.PlacementGroupFactory([{name: share for name, share in settings[RESOURCES].items() if share}])
