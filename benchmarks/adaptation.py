"""What adapting to unlabelled solar cells of another kind brings, and which label-free selector finds it.

    python benchmarks/adaptation.py

Each method trains from mono- to polycrystalline cells and back, over several seeds, all else equal: network, images, epochs,
rates. After every epoch the target's validation images are scored by every selector without labels and, apart, by an
oracle that reads them. The first table has each method at its last epoch; the second, for each selector, what it picks out
of all methods and epochs of a seed.

Finished trainings are lines of ``--runs``; the same command goes on with a table that was cut off.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from resumed import Run, run_missing

from trainable.config.trial import TrialConfig
from trainable.metrics import DIRECTIONS
from trainable.statistics.ranking import agreement, mean_ranks
from trainable.training.fit import fit

DIRECTIONS_OF_TASK = (("mono", "poly"), ("poly", "mono"))
# The published weight of each method's term where there is one, else 1.
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "dann": {"weight": 1.0, "schedule": "ganin"},
    "cdan": {"weight": 1.0, "schedule": "ganin"},
    "mmd": {"weight": 1.0},
    "coral": {"weight": 1.0},
    "mcc": {"weight": 1.0},
    "mcc-bounded": {"method": "mcc", "weight": 1.0, "schedule": "bounded"},
    "adabn": {},
    "dsbn": {},
    "adversarial": {"weight": 1.0},
    "fda": {"weight": 0.5},
}
TRUTHS = ("oracle/accuracy", "oracle/balanced_accuracy")
CALIBRATION = ("oracle/loss", "oracle/ece", "target/overconfidence")
SELECTORS = ("val/balanced_accuracy", *(name for name in DIRECTIONS if name.startswith("target/")))
COMBINED = ("target/snd", "target/dev", "val/balanced_accuracy")


def main() -> None:
    options = read_options()
    runs = measure(options)
    if options.json:
        print(json.dumps(runs))
        return
    for source, target in DIRECTIONS_OF_TASK:
        own = [run for run in runs if run["source"] == source]
        print(f"\n### {source} → {target}\n\n{methods_table(own)}\n\n{selectors_table(own)}")


def read_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method and direction")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="images of each domain")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="a timm architecture")
    parser.add_argument("--weights", default="package:efficientnet-lite0", help="as model.weights of a trial")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--processes", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("adaptation.jsonl"), help="finished trainings, one a line")
    parser.add_argument("--json", action="store_true", help="every metric of every epoch instead of the tables")
    return parser.parse_args(words)


def measure(options: argparse.Namespace) -> list[Run]:
    """Every run of the table; trains those that ``--runs`` does not hold yet, and appends them there."""
    return run_missing(
        list(wanted_runs(options)),
        train=train,
        file=options.runs,
        processes=options.processes,
        line=lambda run: f"{run['source']} seed {run['seed']} {run['method']}: {last(run, TRUTHS[0]):.4f}",
    )


def wanted_runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The trial of each run, seed after seed, so that what was cut off compares all methods."""
    for seed in range(options.seeds):
        for source, target in DIRECTIONS_OF_TASK:
            for method in options.methods:
                yield {
                    "seed": seed,
                    "data": {
                        "format": "elpv",
                        "source": [source],
                        "target": target,
                        "oracle": True,
                        "image_size": options.image_size,
                        "val_share": 0.25,
                        "test_share": 0.05,
                    },
                    "model": {"name": options.model, "weights": options.weights},
                    "freeze": {"depth": 0.25},
                    "optimizer": {"lr": 3e-3, "backbone_multiplier": 0.3},
                    "augment": {"flip": "both", "rotate": "quarter"},
                    "train": {"epochs": options.epochs, "batch_size": options.batch_size, "channels_last": True},
                    "adapt": {"method": method, **METHODS[method]},
                }


def train(asked: dict[str, Any]) -> Run:
    """One training with the metrics of every epoch."""
    torch.set_num_threads(1)
    epochs = [epoch.metrics for epoch in fit(TrialConfig.model_validate(asked))]
    method = next(name for name, own in METHODS.items() if {"method": name, **own} == asked["adapt"])
    named = {"source": asked["data"]["source"][0], "method": method, "seed": asked["seed"]}
    return {**named, "asked": asked, "epochs": epochs}


def methods_table(runs: Sequence[Run]) -> str:
    """Each method at its last epoch; differences from source-only are paired by seed."""
    heads = [
        "method",
        "source val. bal. acc.",
        "oracle: target acc.",
        "bal. acc.",
        "over source-only",
        *CALIBRATION,
    ]
    rows = []
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        gains = [last(run, TRUTHS[1]) - last(of_seed(runs, "none", run["seed"]), TRUTHS[1]) for run in own]
        rows.append(
            [
                method,
                spread([last(run, "val/balanced_accuracy") for run in own]),
                *(spread([last(run, name) for run in own]) for name in TRUTHS),
                "" if method == "none" else spread(gains, sign="+"),
                *(mean_of([last(run, name) for run in own]) for name in CALIBRATION),
            ]
        )
    return markdown(heads, rows)


def selectors_table(runs: Sequence[Run]) -> str:
    """What each selector picks out of all methods and epochs, the mean over seeds; the oracle's own pick is the ceiling."""
    heads = ["selector", "oracle: target acc.", "bal. acc.", *CALIBRATION, "τ with the oracle", "picks"]
    seeds = sorted({run["seed"] for run in runs})
    rows = []
    for name in (*SELECTORS, "mean rank of three", TRUTHS[1]):
        picks = [pick(runs, seed=seed, by=name) for seed in seeds]
        agreed = [] if name == "mean rank of three" else [agreed_with_truth(runs, seed=seed, by=name) for seed in seeds]
        rows.append(
            [
                "*the oracle*" if name == TRUTHS[1] else name,
                *(spread([picked[truth] for _, picked in picks]) for truth in TRUTHS),
                *(mean_of([picked[name] for _, picked in picks]) for name in CALIBRATION),
                f"{statistics.mean(agreed):+.2f}" if agreed else "",
                ", ".join(method for method, _ in picks),
            ]
        )
    return markdown(heads, rows)


def pick(runs: Sequence[Run], *, seed: int, by: str) -> tuple[str, dict[str, float]]:
    """The method and the metrics of the epoch that a selector would choose."""
    options = candidates(runs, seed=seed)
    names = COMBINED if by == "mean rank of three" else (by,)
    ranks = mean_ranks({name: [one[name] for _, one in options] for name in names}, directions=DIRECTIONS)
    return options[ranks.index(min(ranks))]


def agreed_with_truth(runs: Sequence[Run], *, seed: int, by: str) -> float:
    """Kendall's τ_b of a selector with the oracle over all candidates of a seed."""
    values = {name: [one[name] for _, one in candidates(runs, seed=seed)] for name in dict.fromkeys((by, TRUTHS[1]))}
    return next(iter(agreement(values, directions=DIRECTIONS).values()), 1.0)


def candidates(runs: Sequence[Run], *, seed: int) -> list[tuple[str, dict[str, float]]]:
    return [(run["method"], epoch) for run in runs if run["seed"] == seed for epoch in run["epochs"]]


def of_seed(runs: Sequence[Run], method: str, seed: int) -> Run:
    return next(run for run in runs if (run["method"], run["seed"]) == (method, seed))


def last(run: Run, name: str) -> float:
    return float(run["epochs"][-1][name])


def mean_of(values: Sequence[float]) -> str:
    """In its own unit."""
    return f"{statistics.mean(values):.2f}"


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean ± standard deviation in per cent or points."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):{sign}.1f} ± {100 * deviation:.1f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
