"""Measures a search of ours beside the same search written with the stock parts (benchmarks/stock_peer.py).

    python benchmarks/compare.py --rounds 2 --out compare.json

Both train the same configurations on the same image files, ours, stock, ours, stock and so on, each from the command
line in a new folder with an empty cache. Configurations are handed to both samplers as the points to try first, because
the frozen share decides what an epoch costs; ``--free`` leaves every proposal to them.

CPU seconds are user and system time of every process of the tree, Ray's included. This process makes itself the tree's
reaper (PR_SET_CHILD_SUBREAPER), so that what Ray detaches stays its descendant; every 0.2 s it reads each descendant's
times, and keeps the last. The error is what a process uses after its last reading and what lives for less than 0.2 s,
always counted too low: under 0.2 s for each of some twenty processes, mostly idle at their end, so 1 s or so a side.

Everything else is read from MLflow, where both sides log: configurations, epochs (values of the metric), the time of
the first of them, the best of them, the runs and how they stand. Linux only.
"""

import argparse
import ctypes
import json
import math
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import elpv_dataset
import psutil
import yaml
from mlflow import MlflowClient
from mlflow.entities import ViewType

from search.engine.forecast import expected_epochs
from search.engine.halving import Halving
from trainable.config.trial import DataConfig, ModelConfig
from trainable.data.pack import open_pack
from trainable.model.backbone import input_spec

Recipe = dict[str, Any]  # a configuration, by our names
Side = dict[str, Any]  # what was measured of a side
Round = dict[str, Side]
Readings = dict[tuple[int, float], tuple[str, float]]  # process id, its start → kind, CPU seconds
ROOT = Path(__file__).resolve().parents[1]
METRIC = "val/balanced_accuracy"
MODEL = {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"}
BATCH_SIZE, MIN_EPOCHS, REDUCTION, SEED = 32, 1, 3, 0
FEWEST_IMAGES = 2  # of a class in a split
SECONDS_BETWEEN_READINGS = 0.2
SECONDS_INTO_THE_NEXT_EPOCHS = 4.0  # a kill between two trials would hit nothing
PR_SET_CHILD_SUBREAPER = 36
# Searched value of ours → the stock script's name, choices or (low, high) of a logarithmic scale.
VARIED = {
    "optimizer.lr": ("lr", (2e-4, 1e-2)),
    "freeze.depth": ("freeze", [0.5, 0.75, 0.9, 1.0]),
    "augment.strength": ("augment", ["none", "light"]),
    "loss.class_weights": ("class_weights", ["none", "inverse"]),
}


@dataclass(frozen=True)
class Task:
    """One search for both sides; ``images`` is a folder ``{train,val,test}/<class>/``."""

    images: Path
    trials: int
    max_epochs: int
    image_size: int
    recipes: list[Recipe]


@dataclass
class Tree:
    """What a process tree took: seconds by the clock, CPU seconds by the name of the process."""

    wall_seconds: float = 0.0
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    killed: bool = False

    @property
    def cpu_seconds(self) -> float:
        return sum(self.cpu_by_process.values())


def main() -> None:
    options = read_options()
    rounds = compare(options)
    print_table(rounds)
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "rounds": rounds}, indent=1))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--max-epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--images", type=int, default=800, help="of the 2,624 solar cells, over all splits")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--free", action="store_true", help="each side's sampler proposes every configuration")
    parser.add_argument(
        "--kill", action="store_true", help="kill -9 both drivers after half of the epochs, start them again"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for everything measured")
    return parser.parse_args(words)


def compare(options: argparse.Namespace) -> list[Round]:
    """Every round's measurements of both sides."""
    become_reaper()
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        export_images(folder / "images", count=options.images)
        recipes = [] if options.free else draw_recipes(options.trials)
        task = Task(folder / "images", options.trials, options.max_epochs, options.image_size, recipes)
        rounds = []
        for number in range(options.rounds):
            sides = {}
            for side, run in {"ours": run_ours, "stock": run_stock}.items():
                place = folder / f"{side}-{number}"
                place.mkdir()
                sides[side] = run(task, place=place, kill=options.kill)
                print(f"round {number + 1}, {side}: {brief(sides[side])}", file=sys.stderr, flush=True)
                shutil.rmtree(place)
            rounds.append(sides)
    return rounds


def export_images(folder: Path, *, count: int) -> None:
    """Solar cells as ``{train,val,test}/<class>/``, split as our pack splits them, evenly thinned to ``count``."""
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(format="elpv", cache=cache)
        pack = open_pack(config, input_spec(ModelConfig(**MODEL), image_size=16, channels=3))
    source = Path(elpv_dataset.__file__).parent / "data"
    for split in ("train", "val", "test"):
        for label, name in enumerate(pack.classes):
            rows = [row for row in pack.indices(split) if pack.labels[row] == label]
            (folder / split / name).mkdir(parents=True)
            for row in thinned(rows, share=count / len(pack)):
                shutil.copy(source / pack.names[row], folder / split / name)


def thinned(rows: list[int], *, share: float) -> list[int]:
    """That share of the rows, at even distances."""
    keep = min(len(rows), max(FEWEST_IMAGES, round(share * len(rows))))
    return [rows[index * len(rows) // keep] for index in range(keep)]


def draw_recipes(count: int) -> list[Recipe]:
    """``count`` configurations, by our names; the frozen shares come in turn, so that any count holds all of them."""
    chance = random.Random(SEED)
    recipes = []
    for number in range(count):
        recipe = {path: draw(chance, values) for path, (_, values) in VARIED.items()}
        depths = VARIED["freeze.depth"][1]
        recipes.append(recipe | {"freeze.depth": depths[number % len(depths)]})
    return recipes


def draw(chance: random.Random, values: list[Any] | tuple[float, float]) -> Any:
    if isinstance(values, list):
        return chance.choice(values)
    low, high = map(math.log, values)
    return float(f"{math.exp(chance.uniform(low, high)):.4g}")


def run_ours(task: Task, *, place: Path, kill: bool = False, settings: Sequence[str] = ()) -> Side:
    """Our side, with ``settings`` such as ``data.prefix_gb=0`` beside the space file's."""
    (place / "space.yaml").write_text(yaml.safe_dump(space(task)))
    command = [
        sys.executable,
        "-m",
        "search",
        "run",
        "space.yaml",
        *(word for pair in settings for word in ("--set", pair)),
    ]
    measured = run_side(command, place=place, params=[f"cfg.{path}" for path in VARIED], task=task, kill=kill)
    return measured | {"images": names_in_pack(task, cache=place / "cache" / "trainable")}


def space(task: Task) -> dict[str, Any]:
    """The space file of ours, equal in values to ``space`` of the stock script."""
    vary = {
        path: {"choice": values} if isinstance(values, list) else {"log": list(values)}
        for path, (_, values) in VARIED.items()
    }
    return {
        "search": {"name": "ours", "metric": METRIC, "trials": task.trials, "seed": SEED},
        "soup": 0,  # the stock side has none
        "scheduler": {"min_epochs": MIN_EPOCHS, "max_epochs": task.max_epochs, "reduction": REDUCTION},
        "base": {
            "data": {"path": str(task.images), "image_size": task.image_size},
            "model": MODEL,
            "train": {"batch_size": BATCH_SIZE},
            "augment": {"flip": "both"},
        },
        "vary": vary,
        "try_first": task.recipes,
    }


def names_in_pack(task: Task, *, cache: Path) -> list[str]:
    """The images that our search has decoded, as paths below the image folder."""
    config = DataConfig(path=str(task.images), image_size=task.image_size, cache=str(cache))
    pack = open_pack(config, input_spec(ModelConfig(**MODEL), image_size=task.image_size, channels=3))
    return sorted(pack.names)


def run_stock(task: Task, *, place: Path, kill: bool = False) -> Side:
    settings = {
        "images": str(task.images),
        "folder": str(place),
        "tracking_uri": f"sqlite:///{place}/mlflow.db",
        "trials": task.trials,
        "depths": VARIED["freeze.depth"][1],
        "first": [{VARIED[path][0]: value for path, value in recipe.items()} for recipe in task.recipes],
        "min_epochs": MIN_EPOCHS,
        "max_epochs": task.max_epochs,
        "reduction": REDUCTION,
        "image_size": task.image_size,
        "batch_size": BATCH_SIZE,
        "seed": SEED,
    }
    (place / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, str(ROOT / "benchmarks" / "stock_peer.py"), "settings.json"]
    measured = run_side(command, place=place, params=[name for name, _ in VARIED.values()], task=task, kill=kill)
    return measured | {"images": json.loads((place / "summary.json").read_text())["images"]}


def run_side(command: list[str], *, place: Path, params: list[str], task: Task, kill: bool) -> Side:
    """Run a search to its end in ``place``, killed once on the way if asked, and say what it took."""
    started = time.time()
    trees = []
    if kill:
        rule = Halving(
            metric=METRIC, mode="promote", min_epochs=MIN_EPOCHS, max_epochs=task.max_epochs, reduction=REDUCTION
        )
        half = expected_epochs(rule, num_trials=task.trials) // 2
        trees.append(run_tree(command, place=place, kill_when=lambda: count_values(place / "mlflow.db") >= half))
    trees.append(run_tree(command, place=place))
    names = {name for tree in trees for name in tree.cpu_by_process}
    return {
        "wall_seconds": sum(tree.wall_seconds for tree in trees),
        "cpu_seconds": sum(tree.cpu_seconds for tree in trees),
        "cpu_by_process": {name: sum(t.cpu_by_process.get(name, 0.0) for t in trees) for name in sorted(names)},
        "times_killed": sum(tree.killed for tree in trees),
        **read_tracking(place / "mlflow.db", params=params, started=started),
    }


def count_values(database: Path) -> int:
    """How often the metric has been logged so far."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from metrics where key = ?", [METRIC]).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def read_tracking(database: Path, *, params: list[str], started: float) -> Side:
    """What MLflow knows of a search: trials are runs with a value of the metric, the parent run of ours is none."""
    client = MlflowClient(f"sqlite:///{database}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, run_view_type=ViewType.ACTIVE_ONLY, max_results=1000)
    trials = [run for run in runs if METRIC in run.data.metrics]
    histories = [client.get_metric_history(run.info.run_id, METRIC) for run in trials]
    values = [value for history in histories for value in history]
    return {
        "trials": len(trials),
        "configurations": sorted({tuple(run.data.params[name] for name in params) for run in trials}),
        "epochs": sum(len({value.step for value in history}) for history in histories),
        "best": max(value.value for value in values),
        "first_report_seconds": min(value.timestamp for value in values) / 1000 - started,
        "runs": len(runs),
        "runs_left_running": sum(run.info.status == "RUNNING" for run in runs),
    }


def become_reaper() -> None:
    """From here on what loses its parent among our descendants becomes our child."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_tree(command: list[str], *, place: Path, kill_when: Callable[[], bool] = lambda: False) -> Tree:
    """Run a command until its whole tree is gone; raises RuntimeError with the end of its output where it fails."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(place / "cache"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    tree, readings, started = Tree(), {}, time.perf_counter()
    with (place / "output.txt").open("a") as output:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while not has_ended(process):
            read_times(readings)
            if kill_when():
                time.sleep(SECONDS_INTO_THE_NEXT_EPOCHS)
                read_times(readings)
                process.kill()
                tree.killed = True
    tree.wall_seconds = time.perf_counter() - started
    end_descendants(readings)
    for name, seconds in readings.values():
        tree.cpu_by_process[name] = tree.cpu_by_process.get(name, 0.0) + seconds
    if process.returncode and not tree.killed:
        raise RuntimeError(f"{command} failed:\n{(place / 'output.txt').read_text()[-3000:]}")
    return tree


def has_ended(process: subprocess.Popen) -> bool:
    try:
        process.wait(timeout=SECONDS_BETWEEN_READINGS)
    except subprocess.TimeoutExpired:
        return False
    return True


def read_times(readings: Readings) -> list[psutil.Process]:
    """Put every descendant's kind and CPU seconds so far into ``readings``, by process; gives those still alive."""
    alive = []
    for child in psutil.Process().children(recursive=True):
        try:
            with child.oneshot():
                times = child.cpu_times()
                readings[child.pid, child.create_time()] = (kind_of(child), times.user + times.system)
                alive.append(child)
        except psutil.NoSuchProcess:
            continue
    return alive


def kind_of(process: psutil.Process) -> str:
    name = process.name()
    if name.startswith("ray::"):
        return "Ray worker"
    return "driver" if process.ppid() == os.getpid() and name.startswith("python") else "Ray's own"


def end_descendants(readings: Readings, *, patience_seconds: float = 10.0) -> None:
    """Wait for what a command left behind, end it where it stays, take its last times."""
    until = time.perf_counter() + patience_seconds
    while alive := read_times(readings):
        for child in alive:
            if child.status() == psutil.STATUS_ZOMBIE:
                child.wait()
            elif time.perf_counter() > until:
                child.kill()
        time.sleep(SECONDS_BETWEEN_READINGS)


ROWS = [
    ("wall seconds", "wall_seconds", "{:.1f}"),
    ("CPU seconds", "cpu_seconds", "{:.1f}"),
    ("trials", "trials", "{:.0f}"),
    ("epochs trained", "epochs", "{:.0f}"),
    ("CPU seconds an epoch", "cpu_seconds_an_epoch", "{:.2f}"),
    ("best validation score", "best", "{:.4f}"),
    ("seconds to the first report", "first_report_seconds", "{:.1f}"),
    ("MLflow runs", "runs", "{:.0f}"),
    ("runs left RUNNING", "runs_left_running", "{:.0f}"),
]
WITH_RATIO = {"wall_seconds", "cpu_seconds", "epochs", "cpu_seconds_an_epoch", "first_report_seconds"}


def print_table(rounds: list[Round]) -> None:
    """Medians over the rounds, and the ratio stock/ours of every round."""
    print(f"{'median of ' + str(len(rounds)) + ' rounds':<28} {'ours':>9} {'stock':>9}   stock/ours, each round")
    for title, key, form in ROWS:
        values = {side: [value_of(round_[side], key) for round_ in rounds] for side in ("ours", "stock")}
        shown = [form.format(statistics.median(values[side])) for side in ("ours", "stock")]
        ratios = (
            [f"{s / o:.2f}" for o, s in zip(values["ours"], values["stock"], strict=True)] if key in WITH_RATIO else []
        )
        print(f"{title:<28} {shown[0]:>9} {shown[1]:>9}   {' '.join(ratios)}".rstrip())
    for kind in sorted({kind for round_ in rounds for side in round_.values() for kind in side["cpu_by_process"]}):
        shown = [
            f"{statistics.median(round_[side]['cpu_by_process'].get(kind, 0.0) for round_ in rounds):.1f}"
            for side in ("ours", "stock")
        ]
        print(f"{'CPU seconds, ' + kind:<28} {shown[0]:>9} {shown[1]:>9}")


def value_of(side: Side, key: str) -> float:
    return side["cpu_seconds"] / side["epochs"] if key == "cpu_seconds_an_epoch" else side[key]


def brief(side: Side) -> str:
    return ", ".join(f"{title} {form.format(value_of(side, key))}" for title, key, form in ROWS)


if __name__ == "__main__":
    main()
