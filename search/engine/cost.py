"""How many seconds an epoch of a configuration takes, learnt from the epochs that a search has measured."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from search.engine.coordinates import Coordinates
from search.engine.curves import Rows, fit_curves
from search.ledger.trials import Trial

Floats = NDArray[np.float64]

SECONDS = "usage/seconds"
MOST_MEASURED = 64  # trials that the forecast is fitted to, the newest


def epoch_seconds(trial: Trial) -> float | None:
    """What an epoch of this trial takes: the median of its epochs; None where none was measured."""
    seconds = [value for value in trial.values(SECONDS).values() if value > 0]
    return median(seconds) if seconds else None


def forecast_seconds(trials: Sequence[Trial], *, coordinates: Coordinates, rows: Floats) -> Floats:
    """Seconds an epoch for each of these points, N×paths; 1 for all where nothing has been measured.

    The logarithm of the seconds is a Gaussian process over the configuration (:mod:`search.engine.curves`).
    """
    measured = [(trial, seconds) for trial in trials if (seconds := epoch_seconds(trial)) is not None]
    if not measured:
        return np.ones(len(rows))
    logs = np.log([seconds for _, seconds in measured[-MOST_MEASURED:]])
    spread = logs.std()
    if spread < 1e-6:
        return np.full(len(rows), np.exp(logs[0]))
    points = coordinates.rows([trial.params for trial, _ in measured[-MOST_MEASURED:]])
    model = fit_curves(_one_epoch(coordinates, points, first=0), (logs - logs.mean()) / spread)
    means, _ = model.predict(_one_epoch(coordinates, rows, first=len(points)))
    forecast: Floats = np.exp(np.clip(logs.mean() + spread * means, logs.min(), logs.max()))
    return forecast


def _one_epoch(coordinates: Coordinates, points: Floats, *, first: int) -> Rows:
    numbers = np.arange(first, first + len(points))
    return Rows(features=coordinates.features(points), progress=np.zeros(len(points)), trials=numbers)
