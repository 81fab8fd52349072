"""Which search method comes to good values for the least training: played in simulated time on trainings measured before.

    python benchmarks/search_quality.py --tables path/to/tables --split dev --seeds 3 --jobs 2
    python benchmarks/search_quality.py --families curves --seeds 8 --jobs 2 --out quality.json

``--tables`` is a folder with ``lcbench/`` and ``taskset/`` (search_tables.py says what they are); ``curves/`` beside this file is
what make_curves.py wrote. Methods are chosen and tuned on the tasks of ``--split dev`` and reported on those of ``test``; the
curves are in both.

A number of slots train at once, each trial at a speed of its own. Regret is (best - value) / (best - worst), the value being the
best of any epoch so far, whose checkpoint a search keeps. Budgets are multiples of one full training: of its epochs, and where
seconds were measured also of the mean training's seconds, all slots together.
"""

import argparse
import heapq
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from peer_players import MAKERS, is_there, make_peer
from search_players import METHODS, Player, is_known, make_player
from search_tables import LCBENCH, LCBENCH_TEST, Curve, Task, fine_tuning, lcbench, taskset

from trainable.metrics import DIRECTIONS

FULL_TRAININGS = (1, 2, 5, 10, 20)
FAMILIES = ("lcbench", "taskset", "curves")
SLOTS = {"lcbench": 4, "taskset": 4, "curves": 2}
TASKSET_DEV = ("imdb_patch128_LSTM128_avg_bs64", "imdb_patch32_GRU128_bs128")
CURVES = Path(__file__).parent / "curves"


@dataclass(frozen=True)
class Event:
    """The end of an epoch: when, of which trial, its value, the seconds of its work."""

    time: float
    number: int
    epoch: int
    value: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one method came to on one task: the regret at each budget, counted in epochs and in seconds."""

    method: str
    family: str
    task: str
    seed: int
    epochs: Mapping[str, float]
    seconds: Mapping[str, float]
    trials: int


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    options = read_options()
    methods = [
        method
        for method in options.methods
        if is_known(method) or is_there(method) or _skip(method, "is no method here")
    ]
    places = [(family, name) for family, name in task_names(options) if not options.tasks or name in options.tasks]
    jobs = [(*place, method, seed) for place in places for method in methods for seed in range(options.seeds)]
    with get_context("spawn").Pool(options.jobs) as pool:
        play = partial(play_job, options=options)
        runs = []
        for run in pool.imap(play, jobs, chunksize=max(1, len(methods) * options.seeds // options.jobs)):
            runs.append(run)
            print(f"{len(runs)}/{len(jobs)} {run.task} {run.method} {run.seed}", file=sys.stderr, flush=True)
    if options.out:
        options.out.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    for family in dict.fromkeys(run.family for run in runs):
        print("\n".join(table([run for run in runs if run.family == family], title=family)), end="\n\n")


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, help="folder of lcbench/ and taskset/")
    parser.add_argument("--curves", type=Path, default=CURVES, help="folder of what make_curves.py wrote")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, help=f"also ours:SCHEDULER,key=value,… and {', '.join(MAKERS)}"
    )
    parser.add_argument("--tasks", nargs="+", help="of the families, all by default")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=20, help="full trainings")
    parser.add_argument("--slots", type=int, help="trainings at once; 4, and 2 for curves")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="every run as JSON")
    return parser.parse_args(words)


def task_names(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Family and name of the tasks that are there; of a family that is not there it says so."""
    tables = options.tables or Path("no-tables")
    for family in options.families:
        names = []
        if family == "lcbench" and (tables / family / "model.onnx").is_file():
            names = list(LCBENCH if options.split == "dev" else LCBENCH_TEST)
        if family == "taskset":
            found = [path.name for path in sorted((tables / family).glob("*.npz"))]
            is_dev = {name: any(word in name for word in TASKSET_DEV) for name in found}
            names = [name for name in found if is_dev[name] == (options.split == "dev")]
        if family == "curves":
            names = [path.name for path in sorted(options.curves.glob("*.json.gz"))]
        if not names:
            _skip(family, "is not there")
        yield from ((family, name) for name in names)


def _skip(what: str, reason: str) -> bool:
    print(f"skipped: {what} {reason}", file=sys.stderr)
    return False


def play_job(job: tuple[str, str, str, int], *, options: argparse.Namespace) -> Run:
    """One run from its names; the task is read once a process."""
    family, name, method, seed = job
    if family == "lcbench":
        task = lcbench(options.tables / family, task=name)
    else:
        task = taskset(options.tables / family / name) if family == "taskset" else fine_tuning(options.curves / name)
    slots = options.slots or SLOTS[family]
    player = (make_peer if method in MAKERS else make_player)(method, task, seed=seed)
    events = simulate(player, task=task, seed=seed, slots=slots, full_trainings=options.budget)
    marks = [mark for mark in FULL_TRAININGS if mark <= options.budget]
    return Run(
        method=method,
        family=family,
        task=task.name,
        seed=seed,
        epochs={str(mark): regret_after(events, task=task, epochs=mark * task.epochs) for mark in marks},
        seconds={
            str(mark): regret_after(events, task=task, seconds=mark * task.seconds)
            for mark in marks
            if task.seconds is not None
        },
        trials=len({event.number for event in events}),
    )


def simulate(player: Player, *, task: Task, seed: int, slots: int, full_trainings: int) -> list[Event]:
    """The epochs of a search in the order in which they end, until both budgets are spent or nothing is left to do.

    A slot that has nothing to do asks again when an epoch has ended somewhere. A trial trains on where it stood, at no cost.
    """
    server, curves, stands = task.serve(seed), dict[int, Curve](), dict[int, int]()
    ends: list[tuple[float, int, int]] = []  # when, in which order, of which trial
    events: list[Event] = []
    now, order, idle = 0.0, 0, slots
    most_seconds = 0.0 if task.seconds is None else full_trainings * task.seconds
    while True:
        while idle and (work := player.work(may_begin=not server.is_exhausted)) is not None:
            if work.number not in curves:
                curves[work.number], stands[work.number] = server.curve(work.params), 0
            order, idle = order + 1, idle - 1
            heapq.heappush(ends, (now + curves[work.number].seconds[stands[work.number]], order, work.number))
        spent = sum(event.seconds for event in events) if most_seconds else math.inf
        if not ends or (len(events) >= full_trainings * task.epochs and spent >= most_seconds):
            return events
        now, _, number = heapq.heappop(ends)
        curve, epoch = curves[number], stands[number] + 1
        stands[number], value, seconds = epoch, curve.values[epoch - 1], curve.seconds[epoch - 1]
        events.append(Event(now, number, epoch, value, seconds))
        told = None if task.seconds is None else seconds
        if player.hear(number, epoch=epoch, value=value, seconds=told) and epoch < task.epochs:
            order += 1
            heapq.heappush(ends, (now + curve.seconds[epoch], order, number))
        else:
            idle += 1


def regret_after(
    events: Sequence[Event], *, task: Task, epochs: int | None = None, seconds: float | None = None
) -> float:
    """The regret of the best value among the first epochs, as many as there are for so many epochs, or seconds of work."""
    spent, values = 0.0, []
    for event in events[:epochs]:
        spent += event.seconds
        if seconds is not None and spent > seconds:
            break
        values.append(event.value)
    best = max if DIRECTIONS[task.metric] == "maximize" else min
    return task.regret(best(values)) if values else 1.0


def table(runs: Sequence[Run], *, title: str) -> list[str]:
    """Lines of Markdown: for each method 100 × the mean regret ± its standard error at each budget, the mean rank at the last."""
    lines = []
    for unit in ("epochs", "seconds"):
        marks = list(getattr(runs[0], unit))
        if not marks:
            continue
        ranks = mean_rank(runs, unit=unit, mark=marks[-1])
        lines += ["", f"{title}, by {unit}; full trainings:", ""]
        lines.append(" | ".join(["| method", *marks, f"rank at {marks[-1]} |"]))
        lines.append("|---" * (len(marks) + 2) + "|")
        for method in sorted(ranks, key=lambda method: ranks[method]):
            of_method = [getattr(run, unit) for run in runs if run.method == method]
            cells = [_cell([100 * run[mark] for run in of_method]) for mark in marks]
            lines.append(" | ".join([f"| {method}", *cells, f"{ranks[method]:.1f} |"]))
    return lines


def _cell(values: Sequence[float]) -> str:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.1f} ± {error:.1f}"


def mean_rank(runs: Sequence[Run], *, unit: str, mark: str) -> dict[str, float]:
    """The mean over tasks and seeds of each method's place, 1 for the best; equals share the mean of their places."""
    places: dict[str, list[float]] = {}
    for pair in {(run.task, run.seed) for run in runs}:
        rivals: dict[str, Any] = {run.method: getattr(run, unit)[mark] for run in runs if (run.task, run.seed) == pair}
        for method, value in rivals.items():
            better = sum(other < value for other in rivals.values())
            equal = sum(other == value for other in rivals.values())
            places.setdefault(method, []).append(better + (equal + 1) / 2)
    return {method: mean(places[method]) for method in places}


if __name__ == "__main__":
    main()
