"""What light adapters bring beside frozen, partly and fully trained backbones in the same CPU seconds.

    python benchmarks/adapters.py --seconds 60 --seeds 2
    python benchmarks/adapters.py --data path/to/images --model vit_small_patch14_dinov2.lvd142m --weights pretrained

Every arm trains the same network for as many epochs as fit into the seconds, which a short measurement foretells, by one rate an
arm, never tuned. What frozen layers make of the images is kept, and made anew for each seed. The epoch best on validation
images is scored on test images. The table has means over seeds of the test score, CPU seconds, epochs, the largest memory a
process took and the bytes of a checkpoint. Finished trainings are lines of ``--runs``; the same command goes on with them.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from resumed import Run, run_missing

from search.space.paths import nest
from trainable.config.trial import TrialConfig
from trainable.training.fit import fit, measure_epoch
from trainable.training.trained import Trained

METRIC = "balanced_accuracy"
HEAD_RATE, RATE, LOW = 1e-2, 1e-3, {"optimizer.backbone_multiplier": 0.1}
ARMS: dict[str, dict[str, Any]] = {
    "frozen": {"finetune.strategy": "linear_probe", "freeze.depth": 1.0, "optimizer.lr": HEAD_RATE},
    "last quarter": {"finetune.strategy": "partial", "freeze.depth": 0.75, "optimizer.lr": RATE} | LOW,
    "last half": {"finetune.strategy": "partial", "freeze.depth": 0.5, "optimizer.lr": RATE} | LOW,
    "full": {"finetune.strategy": "full", "freeze.depth": 0.0, "optimizer.lr": RATE} | LOW,
    **{
        f"lora, rank {rank}, last {part}": {
            "finetune.strategy": "lora",
            "finetune.rank": rank,
            "freeze.depth": depth,
            "optimizer.lr": RATE,
        }
        for part, depth, rank in (
            ("quarter", 0.75, 8),
            ("half", 0.5, 2),
            ("half", 0.5, 8),
            ("half", 0.5, 32),
            ("all", 0.0, 8),
        )
    },
}
MOST_EPOCHS = 100


def main() -> None:
    options = read_options()
    print("\n".join(table(measure(options))))


def read_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="elpv", help="elpv, or a folder of images as data.path takes it")
    parser.add_argument("--image-size", type=int, default=96, help="pixels")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="a timm architecture")
    parser.add_argument("--weights", default="package:efficientnet-lite0", help="as model.weights of a trial")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("adapters.jsonl"), help="finished trainings, one a line")
    return parser.parse_args(words)


def measure(options: argparse.Namespace) -> list[Run]:
    """Every run of the table; trains those that ``--runs`` does not hold yet, and appends them there."""
    return run_missing(
        list(wanted_runs(options)),
        train=train,
        file=options.runs,
        processes=options.processes,
        line=lambda run: f"{run['asked']['arm']}, seed {run['asked']['seed']}: {run[METRIC]:.4f}",
        trainings_a_process=1,  # the memory that a process took is the training's
    )


def wanted_runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What each run is asked, seed after seed, so that a table that was cut off compares all arms."""
    data = {"data.format": "elpv"} if options.data == "elpv" else {"data.path": options.data}
    for seed in range(options.seeds):
        for arm in options.arms:
            params = {
                **data,
                "seed": seed,
                "data.image_size": options.image_size,
                "model.name": options.model,
                "model.weights": options.weights,
                "train.batch_size": 16,
                "train.metric": f"val/{METRIC}",
                "augment.flip": "both",
                **ARMS[arm],
            }
            yield {"arm": arm, "seed": seed, "seconds": options.seconds, "params": params}


def train(asked: dict[str, Any]) -> Run:
    """One training in its seconds, and the test score of its best epoch."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="adapters-") as folder:
        params = {**asked["params"], "data.cache": f"{folder}/cache"}
        config = TrialConfig.model_validate(
            nest({**params, "train.epochs": num_epochs(params, seconds=asked["seconds"])})
        )
        began, best = time.process_time(), -1.0
        for epoch in fit(config):
            if epoch.metrics[config.train.metric] > best:
                best = epoch.metrics[config.train.metric]
                epoch.save(Path(folder) / "best")
        seconds = time.process_time() - began
        checkpoint = Path(folder) / "best"
        score = Trained(config=config, checkpoint=checkpoint).score("test").metrics[METRIC]
        weights = (checkpoint / "weights.safetensors").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "epochs": config.train.epochs, "validation": best, "weights_bytes": weights}
    return {"asked": asked, METRIC: score, "memory_bytes": memory, **found}


def num_epochs(params: dict[str, Any], *, seconds: float) -> int:
    """How many epochs fit, what frozen layers take before the first included."""
    measured = measure_epoch(TrialConfig.model_validate(nest(params)))
    return min(MOST_EPOCHS, max(1, int((seconds - measured.frozen_seconds) / measured.seconds)))


def table(runs: Sequence[Run]) -> list[str]:
    """Lines of Markdown: the means over seeds."""
    heads = ["arm", "test bal. acc., %", "CPU seconds", "epochs", "memory, MB", "checkpoint, kB"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for arm in dict.fromkeys(run["asked"]["arm"] for run in runs):
        own = [run for run in runs if run["asked"]["arm"] == arm]
        scores = [100 * run[METRIC] for run in own]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        means = {name: statistics.mean(run[name] for run in own) for name in own[0] if name not in ("asked", METRIC)}
        lines.append(
            _line(
                [
                    arm,
                    f"{statistics.mean(scores):.1f} ± {spread:.1f}",
                    f"{means['seconds']:.0f}",
                    f"{means['epochs']:.0f}",
                    f"{means['memory_bytes'] / 1e6:.0f}",
                    f"{means['weights_bytes'] / 1e3:.0f}",
                ]
            )
        )
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
