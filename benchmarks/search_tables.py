"""Trainings that were measured before: tasks for searches in simulated time.

``lcbench/`` holds YAHPO-Gym's LCBench surrogate (Pfisterer et al. 2022), ``taskset/`` tables of TaskSet (Metz et al. 2020),
``curves/`` what make_curves.py has written. A task that is a table serves each request with the nearest row that the run has not
used, so that no method gains from rows that are alike.
"""

import gzip
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from search.engine.coordinates import Coordinates
from search.space.dimension import parse_dimension
from search.space.space import Space, make_space
from search.space.values import Value
from trainable.metrics import DIRECTIONS

Floats = NDArray[np.float64]
Params = Mapping[str, Value]
Elsewhere = Literal["best", "worst"]

LCBENCH = ("3945", "126025", "167104", "167185", "168908", "189909")  # to choose by
LCBENCH_TEST = ("7593", "34539", "126029", "146212", "167161", "168331", "189862", "189906")  # to report on
LCBENCH_EPOCHS = 52
LCBENCH_VARY: dict[str, Any] = {
    "batch_size": {"int": [16, 512], "log": True},
    "learning_rate": {"log": [1e-4, 1e-1]},
    "momentum": {"uniform": [0.1, 0.99]},
    "weight_decay": {"uniform": [1e-5, 1e-1]},
    "num_layers": {"int": [1, 5]},
    "max_units": {"int": [64, 1024], "log": True},
    "max_dropout": {"uniform": [0.0, 1.0]},
}
TASKSET_LOG = 20.0  # an axis whose positive values span more than this factor is searched by its logarithm
NUM_RANDOM, NUM_CLIMBED, CLIMBS = (
    20_000,
    50,
    10,
)  # configurations that the best and worst of a surrogate are looked for in
NUM_ELSEWHERE = 2_000  # random configurations that are looked at on the other tasks
SPEED_SPREAD = 0.25  # standard deviation of the logarithm of a trial's speed where no seconds were measured


@dataclass(frozen=True)
class Curve:
    """What a training would say after each epoch, and the seconds that each takes."""

    values: Sequence[float]
    seconds: Sequence[float]


class Server(Protocol):
    """Serves the curves of one run."""

    @property
    def is_exhausted(self) -> bool:
        """Whether no configuration is left."""

    def curve(self, params: Params) -> Curve:
        """The curve for what a method asks for."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training problem: what is searched, by which metric, for how many epochs; the ``best`` and ``worst`` values there are.

    ``seconds`` is what a full training takes in the mean where that was measured, else None. ``elsewhere`` gives the
    configuration that is best, or worst, in the mean over the other tasks of its family, where that is known.
    """

    name: str
    space: Space
    metric: str
    epochs: int
    best: float
    worst: float
    seconds: float | None
    serve: Callable[[int], Server]
    elsewhere: Callable[[Elsewhere], Params] | None = None

    def regret(self, value: float) -> float:
        """0 for the best value there is, 1 for the worst."""
        return max(0.0, (self.best - value) / (self.best - self.worst))


class Rows:
    """A table as one run sees it."""

    def __init__(self, space: Space, *, points: Floats, curves: Sequence[Curve]) -> None:
        self._coordinates = Coordinates(space)
        self._features = self._coordinates.features(points)
        self._curves = curves
        self._free = np.ones(len(points), dtype=bool)

    @property
    def is_exhausted(self) -> bool:
        """Whether every row is used."""
        return not self._free.any()

    def curve(self, params: Params) -> Curve:
        """The curve of the nearest row that is not used yet, which is used from now on."""
        asked = self._coordinates.features(self._coordinates.rows([params]))
        distances = sum(((rows - row) ** 2).sum(-1) for rows, row in zip(self._features, asked, strict=True))
        nearest = int(np.argmin(np.where(self._free, distances, math.inf)))
        self._free[nearest] = False
        return self._curves[nearest]


class Surrogate:
    """A task of LCBench as one run sees it: the curve of a configuration in one call of the network."""

    is_exhausted = False

    def __init__(self, network: "Network", *, seed: int) -> None:
        self._network = network
        self._chance = random.Random(f"speed {seed}")

    def curve(self, params: Params) -> Curve:
        """Any configuration's curve, at a speed of its own."""
        values = self._network.values([params], epochs=range(1, LCBENCH_EPOCHS + 1))[0]
        return Curve(values.tolist(), [self._chance.lognormvariate(0, SPEED_SPREAD)] * LCBENCH_EPOCHS)


class Network:
    """The surrogate of LCBench for one of its tasks."""

    def __init__(self, folder: Path, *, task: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self._code = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"][task]

    def values(self, points: Sequence[Params], *, epochs: Sequence[int]) -> Floats:
        """Validation accuracies between 0 and 1, points×epochs."""
        rows = np.array([[epoch, *(point[name] for name in LCBENCH_VARY)] for point in points for epoch in epochs])
        codes = np.full((len(rows), 1), self._code, dtype=np.int32)
        (outputs,) = self._session.run(None, {"x_cont": rows.astype(np.float32), "x_cat": codes})
        accuracies: Floats = np.asarray(outputs[:, 1], dtype=np.float64).reshape(len(points), len(epochs)) / 100
        return accuracies


@lru_cache(maxsize=2)
def lcbench(folder: Path, *, task: str) -> Task:
    """A task of the surrogate, its best and worst looked for among random configurations and near to the best of them."""
    network, space = Network(folder, task=task), space_of(LCBENCH_VARY)
    coordinates, chance = Coordinates(space), np.random.default_rng(0)
    rows = coordinates.draw(chance, count=NUM_RANDOM)
    last = network.values([coordinates.params(row) for row in rows], epochs=[LCBENCH_EPOCHS])[:, 0]
    worst = float(last.min())
    rows = rows[np.argsort(-last)[:NUM_CLIMBED]]
    best = 0.0
    for _ in range(CLIMBS):
        around = np.concatenate([rows, coordinates.near(np.repeat(rows, 4, axis=0), chance=chance)])
        points = [coordinates.params(row) for row in around]
        tops = network.values(points, epochs=range(1, LCBENCH_EPOCHS + 1)).max(axis=1)
        rows, best = around[np.argsort(-tops)[:NUM_CLIMBED]], float(tops.max())
    return Task(
        name=f"lcbench/{task}",
        space=space,
        metric="val/accuracy",
        epochs=LCBENCH_EPOCHS,
        best=best,
        worst=worst,
        seconds=None,
        serve=lambda seed: Surrogate(network, seed=seed),
        elsewhere=lambda which: lcbench_elsewhere(folder, besides=task, which=which),
    )


@lru_cache
def lcbench_elsewhere(folder: Path, *, besides: str, which: Elsewhere) -> Params:
    """Of some random configurations the one with the best, or worst, mean over all tasks of the surrogate but one.

    Each task counts by the share of its range of final accuracies.
    """
    space = space_of(LCBENCH_VARY)
    coordinates = Coordinates(space)
    rows = coordinates.draw(np.random.default_rng(0), count=NUM_ELSEWHERE)
    points = [coordinates.params(row) for row in rows]
    shares = np.zeros(len(points))
    for task in {*LCBENCH, *LCBENCH_TEST} - {besides}:
        last = Network(folder, task=task).values(points, epochs=[LCBENCH_EPOCHS])[:, 0]
        shares += (last - last.min()) / (last.max() - last.min())
    return points[int(shares.argmax() if which == "best" else shares.argmin())]


@lru_cache(maxsize=8)
def taskset(path: Path) -> Task:
    """A table of TaskSet over the ranges of its rows, of beta that of 1 - beta.

    No loss counts for more than the median of the first step's, where nothing has been learnt: they go up to 1e17, beside which
    every regret would be small.
    """
    with np.load(path) as table:
        names = [str(name) for name in table["names"]]
        values, losses = table["hp"].astype(float), table["valid_loss"].astype(float)
    losses = np.fmin(losses, np.nanmedian(losses[:, 0]))
    for index, name in enumerate(names):
        if name.startswith("beta"):
            names[index], values[:, index] = f"one_minus_{name}", 1 - values[:, index]
    space = space_of({name: _range(values[:, index]) for index, name in enumerate(names)})
    points = Coordinates(space).rows([dict(zip(names, row, strict=True)) for row in values.tolist()])

    def serve(seed: int) -> Rows:
        chance = random.Random(f"speed {seed}")
        speeds = [chance.lognormvariate(0, SPEED_SPREAD) for _ in losses]
        curves = [Curve(row, [speed] * len(row)) for row, speed in zip(losses.tolist(), speeds, strict=True)]
        return Rows(space, points=points, curves=curves)

    lowest = losses.min(axis=1)
    return Task(
        name=f"taskset/{path.stem.removeprefix('FixedTextRNNClassification_')}",
        space=space,
        metric="val/loss",
        epochs=losses.shape[1],
        best=float(lowest.min()),
        worst=float(lowest.max()),
        seconds=None,
        serve=serve,
    )


@lru_cache(maxsize=8)
def fine_tuning(path: Path) -> Task:
    """Curves of real fine-tuning with the seconds that their epochs took."""
    stored = json.loads(gzip.decompress(path.read_bytes()))
    return fine_tuning_task(path.name.removesuffix(".json.gz"), vary=stored["vary"], lines=stored["curves"])


def fine_tuning_task(name: str, *, vary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Task:
    """A task of curves; one that diverged has the worst value in its missing epochs, which take as long as its others."""
    metric = "val/balanced_accuracy"
    best_of = max if DIRECTIONS[metric] == "maximize" else min
    worst_of = min if best_of is max else max
    lines = [line for line in lines if line[metric]]
    epochs = max(len(line[metric]) for line in lines)
    lowest = worst_of(value for line in lines for value in line[metric])
    curves = []
    for line in lines:
        missing, seconds = epochs - len(line[metric]), line["cpu_seconds"]
        mean = sum(seconds) / len(seconds)
        curves.append(Curve([*line[metric], *[lowest] * missing], [*seconds, *[mean] * missing]))
    space = space_of(vary)
    points = Coordinates(space).rows([line["params"] for line in lines])
    tops = [best_of(curve.values) for curve in curves]
    return Task(
        name=f"curves/{name}",
        space=space,
        metric=metric,
        epochs=epochs,
        best=best_of(tops),
        worst=worst_of(tops),
        seconds=sum(sum(curve.seconds) for curve in curves) / len(curves),
        serve=lambda seed: Rows(space, points=points, curves=curves),
    )


def space_of(vary: Mapping[str, Any]) -> Space:
    """The space of dimensions as a space file writes them."""
    return make_space({path: parse_dimension(raw, where=path) for path, raw in vary.items()})


def _range(column: Floats) -> dict[str, Any]:
    low, high = float(column.min()), float(column.max())
    return {"log" if low > 0 and high / low > TASKSET_LOG else "uniform": [low, high]}
