"""What a search of very many short trials asks of its driver: real workers on several Ray nodes of this machine.

    python benchmarks/scale.py                                # 1,000 trials on four nodes of four CPUs
    python benchmarks/scale.py --trials 40 --nodes 2 --cpus 1

A Ray cluster is started whose head does no work; the search joins it as ``python -m search run … --address`` does. Trials train a
head behind the frozen layers of a small random network, on 60 solar cells at 32 pixels, for one epoch to three, so that next to
nothing but the search itself is to be done. The driver's processor time, its memory, the length of its journal and how many
trials MLflow is behind are read every five seconds; ``driver.py`` plays 10,000 trials without workers. Linux only.
"""

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray.cluster_utils import Cluster

from search.ledger.stored import open_ledger

NAME = "scale"
COUNTS = {"defective": 25, "functional": 35}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The driver at one moment: seconds since its start, processor seconds so far, memory, journal, trials here and in MLflow."""

    seconds: float
    processor_seconds: float
    megabytes: float
    journal_megabytes: float
    begun: int
    in_mlflow: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=4, help="of each node; a trial takes one")
    parser.add_argument("--scheduler", choices=("asha", "freeze_thaw", "none"), default="asha")
    parser.add_argument("--out", type=Path, help="every reading as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        place = Path(folder)
        write_images(place / "images")
        (place / "space.yaml").write_text(yaml.safe_dump(space_of(options)))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for _ in range(options.nodes):
                cluster.add_node(num_cpus=options.cpus)
            readings = measure(place, address=cluster.address)
        finally:
            cluster.shutdown()
        if options.out:
            options.out.write_text(json.dumps([vars(reading) for reading in readings]))
        print_table(readings, place=place, options=options)


def space_of(options: argparse.Namespace) -> dict[str, Any]:
    """A search of that many trials, of which halving trains a third to the second epoch."""
    return {
        "search": {"name": NAME, "trials": options.trials, "seed": 0, "metric": "val/loss"},  # which has no ties
        "scheduler": {"name": options.scheduler}
        | ({} if options.scheduler == "none" else {"min_epochs": 1, "reduction": 3})
        | {"max_epochs": 3},
        "resources": {"cpu": 1, "concurrency": options.nodes * options.cpus},
        "baselines": [],
        "soup": 0,
        "base": {
            "data": {"path": "images", "image_size": 32},
            "model": {"name": "test_resnet", "weights": "random"},
            "augment": {"strength": "none"},
            "freeze": {"depth": 1.0},
        },
        "vary": {
            "optimizer.lr": {"log": [1e-4, 1e-1]},
            "optimizer.weight_decay": {"log": [1e-6, 1e-2]},
            "loss.label_smoothing": {"uniform": [0.0, 0.2]},
            "train.batch_size": {"choice": [16, 32]},
        },
    }


def write_images(folder: Path) -> None:
    """The first cells that are surely defective, and surely not, of the package that the extra ``demo`` brings."""
    spec = find_spec("elpv_dataset")
    assert spec, "pip install '.[demo]'"
    data = Path(str(spec.origin)).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    for name, probability in (("defective", 1.0), ("functional", 0.0)):
        (folder / name).mkdir(parents=True)
        for path in [line[0] for line in lines if float(line[1]) == probability][: COUNTS[name]]:
            shutil.copy(data / path, folder / name)


def measure(place: Path, *, address: str) -> list[Reading]:
    """Run the search and read its driver until it ends."""
    command = [sys.executable, "-m", "search", "run", "space.yaml", "--address", address]
    began = time.monotonic()
    with (place / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=place, stdout=output, stderr=subprocess.STDOUT)
        driver, readings = psutil.Process(process.pid), []
        while process.poll() is None:
            time.sleep(5)
            try:
                readings.append(read(driver, place=place, seconds=time.monotonic() - began))
            except psutil.NoSuchProcess:
                break
    if process.wait():
        raise SystemExit((place / "output").read_text())
    return [reading for reading in readings if reading.begun]


def read(driver: psutil.Process, *, place: Path, seconds: float) -> Reading:
    """One reading; MLflow's is of its database, as any other reader sees it."""
    times, journal = driver.cpu_times(), place / "searches" / NAME / "ledger.journal"
    is_there = journal.is_file()
    return Reading(
        seconds=seconds,
        processor_seconds=times.user + times.system,
        megabytes=driver.memory_info().rss / 1e6,
        journal_megabytes=journal.stat().st_size / 1e6 if is_there else 0.0,
        begun=len(open_ledger(journal.parent)[1].trials()) if is_there else 0,
        in_mlflow=runs_in(place / "mlflow.db"),
    )


def runs_in(database: Path) -> int:
    """How many runs an MLflow database holds; 0 while it is being made."""
    if not database.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def print_table(readings: list[Reading], *, place: Path, options: argparse.Namespace) -> None:
    """What the whole took, and the driver's share of a core in each quarter of it."""
    trials, last = open_ledger(place / "searches" / NAME)[1].trials(), readings[-1]
    assert len(trials) == options.trials
    assert not any(trial.state == "RUNNING" for trial in trials)
    behind = [
        reading.begun - (reading.in_mlflow - 1) for reading in readings if reading.in_mlflow
    ]  # one is the search's own
    quarters = [readings[round(share * (len(readings) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    shares = [
        (after.processor_seconds - before.processor_seconds) / (after.seconds - before.seconds)
        for before, after in pairwise(quarters)
    ]
    most = max(reading.megabytes for reading in readings)
    epochs = Counter(len(trial.epochs) for trial in trials)
    rows = {
        "trials, epochs": f"{len(trials)}, {sum(count * number for count, number in epochs.items())}",
        "of 1, 2, 3 epochs": ", ".join(str(epochs[count]) for count in (1, 2, 3)),
        "wall seconds": f"{last.seconds:.0f}",
        "driver's processor seconds": f"{last.processor_seconds:.0f}",
        "its share of a core, by quarters": ", ".join(f"{share:.2f}" for share in shares),
        "its memory, MB: after the first trial, at most": f"{readings[0].megabytes:.0f}, {most:.0f}",
        "journal, MB": f"{last.journal_megabytes:.1f}",
        "trials that MLflow is behind: mean, most": f"{sum(behind) / len(behind):.1f}, {max(behind)}",
    }
    print(f"| {options.nodes} nodes of {options.cpus} CPUs | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))


if __name__ == "__main__":
    main()
