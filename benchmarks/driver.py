"""What the driver of a large search costs: decisions, reports, opening the ledger, memory.

    python benchmarks/driver.py                        # 100, 1,000 and 10,000 trials, about a minute
    python benchmarks/driver.py --trials 100 1000      # about 15 seconds

Plays a search without workers: the real conductor and ledger, made-up metrics, the space of spaces/resnet.yaml, halving from 4 to
36 epochs by 3 with a promotion as soon as one is earned, about 10 epochs a trial. A ledger of that many trials is written first,
with random values and without waiting for the disk; then, in a process of its own, it is opened, and the search goes on with the
sampler. Times are the driver's processor time; what a disk takes to confirm a write is not in it. --ledgers keeps what was
written, so that two versions can be measured on the same.
"""

import argparse
import json
import math
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from search.engine.conductor import Conductor, Leg
from search.engine.halving import Halving
from search.engine.limits import Limits
from search.engine.reports import EpochReport
from search.engine.sampling import Sampling
from search.ledger import ledger as ledgers
from search.ledger.ledger import Ledger
from search.space.dimension import parse_dimension
from search.space.space import make_space

METRIC = "val/balanced_accuracy"
OTHERS = (
    "val/accuracy",
    "val/macro_f1",
    "val/loss",
    "val/ece",
    "train/loss",
    "train/accuracy",
    "usage/images_per_second",
)
RULE = Halving(metric=METRIC, mode="promote", min_epochs=4, max_epochs=36, reduction=3)
SPACE = make_space(
    {
        path: parse_dimension(raw, where=path)
        for path, raw in {
            "freeze.depth": {"choice": [0, 0.25, 0.5, 0.75, 1.0]},
            "freeze.bn": {
                "choice": ["eval", "train_stats", "train_all"],
                "when": {"freeze.depth": [0.25, 0.5, 0.75, 1.0]},
            },
            "optimizer.lr": {"log": [1e-4, 1e-2]},
            "optimizer.backbone_multiplier": {"log": [0.01, 1.0]},
            "optimizer.layer_decay": {"uniform": [0.5, 1.0]},
            "optimizer.weight_decay": {"log": [1e-5, 1e-1]},
            "augment.strength": {"choice": ["none", "light", "medium", "strong"]},
            "loss.label_smoothing": {"choice": [0.0, 0.05, 0.1]},
        }.items()
    }
)


@dataclass
class Measured:
    """Seconds of processor time, by what they were spent on."""

    opening: float = 0.0
    peak_megabytes: float = 0.0
    proposals: list[float] = field(default_factory=list)
    promotions: list[float] = field(default_factory=list)
    reports: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000], help="sizes of searches")
    parser.add_argument("--decisions", type=int, default=60, help="how many are measured at each size")
    parser.add_argument("--sampler", default="tpe", help="random, tpe or gp")
    parser.add_argument("--ledgers", type=Path, help="where written ledgers are kept, and found again")
    options = parser.parse_args()
    print(
        "| trials | new trial, ms: median, p95 | promotion, ms | report, ms: median, p95 | opening, s | peak memory, MB |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for num_trials in options.trials:
            folder = (options.ledgers or Path(temporary)) / str(num_trials)
            if not (folder / ledgers.JOURNAL).is_file():
                alone(write, folder, num_trials)
            show(num_trials, alone(measure, folder, num_trials, options.decisions, options.sampler))


def alone(work: Any, *given: Any) -> Any:
    """Do the work in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def show(num_trials: int, measured: Measured) -> None:
    columns = [
        f"{num_trials:,}",
        milliseconds(measured.proposals),
        f"{1000 * statistics.median(measured.promotions or [math.nan]):.1f}",
        milliseconds(measured.reports),
        f"{measured.opening:.3f}",
        f"{measured.peak_megabytes:.0f}",
    ]
    print(f"| {' | '.join(columns)} |", flush=True)


def milliseconds(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{1000 * statistics.median(ordered):.1f}, {1000 * ordered[int(0.95 * len(ordered))]:.1f}"


class MemoryJournal(BaseJournalBackend):
    """A journal that lies in memory until it is copied into a file, so that no write waits for the disk."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        yield from self.logs[log_number_from:]


def write(folder: Path, num_trials: int) -> None:
    """Play a search with random values until the last of so many trials has begun and reached its first rung."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = MemoryJournal()
    storage = JournalStorage(journal)
    study = optuna.create_study(study_name="driver", storage=storage, direction="maximize")
    conductor = conduct(Ledger(study, storage, metric=METRIC, space=SPACE), num_trials=num_trials, sampler="random")
    number = -1
    while number < num_trials - 1:
        leg = conductor.next_leg()
        assert leg is not None
        number = max(number, leg.number)
        train(conductor, leg, spent=[])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in journal.logs]
    (folder / ledgers.JOURNAL).write_text("".join(lines))


def measure(folder: Path, num_trials: int, num_decisions: int, sampler: str) -> Measured:
    """Open the ledger, go on with the search for some decisions, and take these back."""
    measured = Measured()
    before = time.process_time()
    ledger = ledgers.open_existing(folder, name="driver", storage=None, space=SPACE)
    assert len(ledger.trials()) == num_trials
    measured.opening = time.process_time() - before
    conductor = conduct(ledger, num_trials=num_trials + num_decisions, sampler=sampler)
    journal = folder / ledgers.JOURNAL
    size = journal.stat().st_size
    try:
        for turn in range(num_decisions + 1):
            before = time.process_time()
            leg = conductor.next_leg()
            seconds = time.process_time() - before
            assert leg is not None
            if turn:  # the first has what is made once
                (measured.promotions if leg.start else measured.proposals).append(seconds)
            train(conductor, leg, spent=measured.reports)
    finally:
        with journal.open("r+b") as file:
            file.truncate(size)
    measured.peak_megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return measured


def conduct(ledger: Ledger, *, num_trials: int, sampler: str) -> Conductor:
    sampling = Sampling(sampler=sampler, seed=0, random_share=0.0, metric=METRIC, rungs=RULE.rungs)
    return Conductor(
        ledger,
        space=SPACE,
        rule=RULE,
        sampling=sampling,
        limits=Limits(trials=num_trials, gpu_hours=1e9),
        on_change=lambda trial: None,
    )


def train(conductor: Conductor, leg: Leg, *, spent: list[float]) -> None:
    """Report a leg's epochs, with values that depend on the trial's and rise with the epochs."""
    chance = random.Random(leg.number)
    quality = math.exp(-abs(math.log10(float(str(leg.params["optimizer.lr"]))) + 2.7)) - chance.random() / 10
    for epoch in range(leg.start + 1, leg.until + 1):
        metrics = {name: chance.random() for name in OTHERS}
        metrics |= {METRIC: quality * (1 - 1 / (epoch + 1)), "usage/seconds": 10 * chance.random()}
        ended = "last epoch" if epoch == RULE.max_epochs else None
        before = time.process_time()
        conductor.report(leg.number, report=EpochReport(epoch, metrics, ended))
        spent.append(time.process_time() - before)
    conductor.leg_over(leg.number)


if __name__ == "__main__":
    main()
