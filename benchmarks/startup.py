"""Measures what passes between the command of a search and its first trial's first step, and after its last.

    python benchmarks/startup.py --rounds 3

Runs ``spaces/quickstart.yaml`` with two trials of one epoch at 64 pixels, one after the other: first with a cache that is empty,
so that all images are decoded, then with the cache that the first left.

Nothing in the program is instrumented: moments are those of the lines that it prints, and the first step's is that of the first
epoch's record less what the epoch took. CPU seconds until the first step are those of every process of the tree, read every
0.1 s, so that what a process uses after its last reading is not counted. Another checkout is measured by ``--tree``. Linux only.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from search.ledger.stored import open_ledger_of, stored_spec

NAME = "quickstart"
CHANGES = (
    "scheduler.max_epochs=1",
    "scheduler.name=none",
    "baselines=[]",
    "data.image_size=64",
    "resources.concurrency=1",
)
MOMENTS = {  # what a line begins with, by what it tells
    "Ray is up, data and networks are looked at": f"search {NAME}:",
    "the first trial is handed out": "trial 0 starts",
    "the first epoch is reported": "trial ",
    "every trial is decided and the best is scored": "finished:",
}
FIRST_STEP, END = "the first step begins", "the command has ended"
CPU, LEG = "CPU seconds until the first step", "seconds that a leg on a warm worker takes to begin"


def main() -> None:
    """Print a table for each kind of run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tree", type=Path, default=Path(__file__).resolve().parents[1], help="The checkout to measure."
    )
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {"first run": [], "packed": []}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(options.rounds):
            cache = Path(place, "cache")
            for kind in rounds:
                rounds[kind].append(measure(options.tree.resolve(), place=Path(place), cache=cache))
            shutil.rmtree(cache)
    print_table(rounds)


def measure(tree: Path, *, place: Path, cache: Path) -> dict[str, float]:
    """Seconds from the command to each moment of one search."""
    folder = Path(tempfile.mkdtemp(dir=place))
    command = [sys.executable, "-m", "search", "run", str(tree / "spaces/quickstart.yaml"), "--trials", "2"]
    for change in (*CHANGES, f"data.cache={cache}"):
        command += ["--set", change]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    began, moments = time.time(), {}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    readings: list[tuple[float, float]] = []
    threading.Thread(target=follow, args=(process.pid, readings), daemon=True).start()
    assert process.stdout is not None
    for line in process.stdout:
        for name, beginning in MOMENTS.items():
            if name not in moments and line.startswith(beginning) and (beginning != "trial " or " epoch 1" in line):
                moments[name] = time.time() - began
    if process.wait():
        sys.exit(f"the search ended with {process.returncode}")
    moments[END] = time.time() - began
    return moments | of_ledger(folder / "searches" / NAME, began=began, readings=readings)


def follow(pid: int, readings: list[tuple[float, float]]) -> None:
    """Read the CPU seconds that a tree of processes has used so far until it has ended, each with the time."""
    used: dict[tuple[int, float], float] = {}
    while psutil.pid_exists(pid):
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
        except psutil.NoSuchProcess:
            pass
        readings.append((time.time(), sum(used.values())))
        time.sleep(0.1)


def of_ledger(folder: Path, *, began: float, readings: list[tuple[float, float]]) -> dict[str, float]:
    """What only the record of a search tells: when its first epoch began, and how long a later leg took to begin."""
    trials = open_ledger_of(stored_spec(folder), folder=folder).trials()
    epochs = sorted((trial.epochs[0] for trial in trials), key=lambda epoch: epoch.recorded)
    step = epochs[0].recorded.timestamp() - epochs[0].metrics["usage/seconds"]
    facts = {FIRST_STEP: step - began, CPU: max((cpu for moment, cpu in readings if moment <= step), default=0.0)}
    starts = [epoch.metrics["usage/start_seconds"] for epoch in epochs if "usage/start_seconds" in epoch.metrics]
    return facts | ({LEG: starts[-1]} if starts else {})


def print_table(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Print medians, a column for each kind of run, with every round's first step below."""
    names = [*list(MOMENTS)[:2], FIRST_STEP, *list(MOMENTS)[2:], END, CPU, LEG]
    print(f"| median of {len(next(iter(rounds.values())))} rounds, seconds from the command | {' | '.join(rounds)} |")
    print("|---|" + "---|" * len(rounds))
    for name in names:
        cells = [[one[name] for one in every if name in one] for every in rounds.values()]
        print(f"| {name} | {' | '.join(f'{statistics.median(values):.1f}' if values else '' for values in cells)} |")
    for kind, every in rounds.items():
        print(f"{kind}, the first step of each round: {', '.join(f'{one[FIRST_STEP]:.1f}' for one in every)}")


if __name__ == "__main__":
    main()
