"""Repeats the tables that articles on transfer learning print, one factor at a time, over several seeds.

    python benchmarks/seed_table.py --data elpv --limit 320

Every arm is another arm with one factor changed (``ARMS``), so each step says what that factor did. All arms see the same
images in the same splits for as many epochs; a seed is that of the head's start, batch order and views. The epoch of the
best validation balanced accuracy is scored on the test split, once. Each training runs in a process of its own, since
peak memory on a CPU is that of a process since its start.

Finished trainings are lines of ``--runs``; the same command goes on with one that was cut off.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from csv import writer
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from trainable.config.trial import DataConfig, ModelConfig, TrialConfig
from trainable.data.pack import Pack, open_pack
from trainable.errors import UserError
from trainable.model.backbone import input_spec
from trainable.training.fit import DivergedError, fit
from trainable.training.trained import Trained

Settings = dict[str, Any]  # dotted path → value
Result = dict[str, Any]  # what one training gave
METRIC = "val/balanced_accuracy"
BASELINE = "scratch"
NEAR_BEST = 0.95
SMALLEST_SIZE = 16  # pixels of the images decoded only to learn their names and splits


@dataclass(frozen=True)
class Arm:
    """The arm ``of``, with one factor changed to the values of ``change``."""

    of: str | None
    factor: str
    change: Settings


ARMS = {
    "scratch": Arm(
        None,
        "random weights, fixed rate 1e-3, no augmentation",
        {
            "finetune.strategy": "scratch",
            "optimizer.lr": 1e-3,
            "lr_schedule.name": "constant",
            "augment.strength": "none",
        },
    ),
    "full_fixed_lr": Arm("scratch", "pretrained weights", {"finetune.strategy": "partial"}),
    "full_cosine": Arm("full_fixed_lr", "cosine schedule", {"lr_schedule.name": "cosine"}),
    "full": Arm("full_cosine", "light augmentation", {"augment.strength": "light"}),
    "linear_probe": Arm("full", "only the head trains", {"finetune.strategy": "linear_probe"}),
    "frozen_same_lr": Arm("full", "lower half frozen", {"freeze.depth": 0.5}),
    "frozen": Arm(
        "frozen_same_lr", "layer-wise rates", {"optimizer.backbone_multiplier": 0.1, "optimizer.layer_decay": 0.75}
    ),
    "frozen_strong": Arm("frozen", "strong augmentation", {"augment.strength": "strong"}),
    "frozen_smooth": Arm("frozen_strong", "label smoothing 0.1", {"loss.label_smoothing": 0.1}),
    "frozen_mixup": Arm("frozen_smooth", "MixUp 0.2", {"augment.mixup": 0.2}),
}


@dataclass(frozen=True)
class Task:
    """What all arms share; ``data`` is `elpv`, a folder or a manifest, ``limit`` the most training images."""

    data: str
    limit: int | None
    image_size: int
    epochs: int
    batch_size: int
    model: str
    weights: str


def main() -> None:
    options = read_options()
    task = Task(**{name: getattr(options, name) for name in Task.__dataclass_fields__})
    try:
        results = measure(task, seeds=options.seeds, runs=options.runs, train=in_own_process)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(summary(task, results), indent=1) if options.json else markdown(results))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="elpv", help="elpv, an image folder, or a CSV or Parquet manifest")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm, seeds 0, 1 and so on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images")
    parser.add_argument("--limit", type=int, help="training images at most, by class; validation and test stay whole")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="a timm architecture")
    parser.add_argument("--weights", default="package:efficientnet-lite0", help="as model.weights of a trial")
    parser.add_argument("--runs", type=Path, default=Path("seed_table.jsonl"), help="finished trainings, one a line")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON document instead of the table")
    return parser.parse_args(words)


def measure(task: Task, *, seeds: int, runs: Path, train: Callable[[TrialConfig], Result]) -> dict[str, list[Result]]:
    """Every arm's results by seed; trains what ``runs`` does not hold yet, and appends it there."""
    known = read_runs(runs)
    with tempfile.TemporaryDirectory(prefix="seed-table-") as folder:
        data = data_section(task, folder=Path(folder))
        for seed in range(seeds):  # seed after seed, so that what was cut off compares all arms
            for arm in ARMS:
                key = run_key(task, arm=arm, seed=seed)
                if key not in known:
                    known[key] = train(trial_config(task, arm=arm, seed=seed, data=data))
                    append_run(runs, key=key, arm=arm, seed=seed, result=known[key])
                    print(f"seed {seed}, {arm}: {known[key]}", file=sys.stderr, flush=True)
    return {arm: [known[run_key(task, arm=arm, seed=seed)] for seed in range(seeds)] for arm in ARMS}


def data_section(task: Task, *, folder: Path) -> Settings:
    """The trial's ``data``; with a limit a manifest, written into ``folder``, of the images that stay."""
    given: Settings = {"format": "elpv"} if task.data == "elpv" else {"path": task.data}
    if task.limit is None:
        return given | {"image_size": task.image_size}
    spec = input_spec(ModelConfig(name=task.model, weights=task.weights), image_size=SMALLEST_SIZE, channels=3)
    pack = open_pack(DataConfig(**given), spec)
    root = images_root(task.data)
    if not (root / pack.names[0]).is_file():
        raise UserError(f"--limit: the images of {task.data} lie in a table, not in files; leave it out")
    with (folder / "images.csv").open("w", newline="") as file:
        rows = writer(file)
        rows.writerow(["image", "label", "split"])
        rows.writerows(limited_rows(pack, root=root, limit=task.limit))
    return {"path": str(folder / "images.csv"), "image_size": task.image_size}


def images_root(data: str) -> Path:
    """The folder that the names of a data set's images are relative to."""
    if data == "elpv":
        spec = find_spec("elpv_dataset")
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).parent / "data"
    path = Path(data).expanduser().resolve()
    return path if path.is_dir() else path.parent


def limited_rows(pack: Pack, *, root: Path, limit: int) -> Iterable[tuple[Path, str, str]]:
    """Path, class, split: of training images ``limit`` or so, as many of a class as its share; of the others all."""
    share = min(1.0, limit / len(pack.indices("train")))
    for split in ("train", "val", "test"):
        for label, name in enumerate(pack.classes):
            rows = [row for row in pack.indices(split) if pack.labels[row] == label]
            keep = max(1, round(share * len(rows))) if split == "train" else len(rows)
            for index in range(keep):
                yield root / pack.names[rows[index * len(rows) // keep]], name, split


def arm_settings(arm: str) -> Settings:
    """All that an arm sets, its neighbours' changes below its own."""
    neighbour = ARMS[arm].of
    return (arm_settings(neighbour) if neighbour else {}) | ARMS[arm].change


def trial_config(task: Task, *, arm: str, seed: int, data: Settings) -> TrialConfig:
    """The trial of an arm."""
    sections: dict[str, Any] = {
        "seed": seed,
        "data": data,
        "model": {"name": task.model, "weights": task.weights},
        "train": {"epochs": task.epochs, "batch_size": task.batch_size, "channels_last": True, "metric": METRIC},
    }
    for path, value in arm_settings(arm).items():
        section, name = path.split(".")
        sections.setdefault(section, {})[name] = value
    return TrialConfig.model_validate(sections)


def in_own_process(config: TrialConfig) -> Result:
    """:func:`train_and_test` in a process that is forked from one that has only imported what it needs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["trainable.training.fit"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(train_and_test, config).result()


def train_and_test(config: TrialConfig) -> Result:
    """Train to the end, or until the loss diverges; score the best epoch on the test split."""
    history: list[dict[str, float]] = []
    ended = "last epoch"
    cpu_before = time.process_time()
    with tempfile.TemporaryDirectory(prefix="seed-table-") as folder:
        best = Path(folder) / "best"
        try:
            for epoch in fit(config):
                if all(epoch.metrics[METRIC] > earlier[METRIC] for earlier in history):
                    epoch.save(best)
                history.append(epoch.metrics)
        except DivergedError as error:
            if not history:
                raise
            ended = str(error)
        cpu_seconds = time.process_time() - cpu_before
        test = Trained(config=config, checkpoint=best).score("test").named("test")
    values = [metrics[METRIC] for metrics in history]
    return {
        "test/accuracy": test["test/accuracy"],
        "test/balanced_accuracy": test["test/balanced_accuracy"],
        METRIC: max(values),
        "best_epoch": values.index(max(values)) + 1,
        "epochs_to_near_best": next(n for n, value in enumerate(values, 1) if value >= NEAR_BEST * max(values)),
        "wall_seconds": sum(metrics["usage/seconds"] for metrics in history),
        "cpu_seconds": cpu_seconds,
        "peak_memory_bytes": max(metrics["usage/peak_memory_bytes"] for metrics in history),
        "ended": ended,
    }


def run_key(task: Task, *, arm: str, seed: int) -> str:
    """What a result is a function of."""
    return json.dumps({"task": asdict(task), "settings": arm_settings(arm), "seed": seed}, sort_keys=True)


def read_runs(path: Path) -> dict[str, Result]:
    """Finished trainings; a line that was cut off is left out."""
    known = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[json.dumps(record["of"], sort_keys=True)] = record["result"]
    return known


def append_run(path: Path, *, key: str, arm: str, seed: int, result: Result) -> None:
    was_cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        record = {"arm": arm, "seed": seed, "result": result, "of": json.loads(key)}
        file.write(("\n" if was_cut_off else "") + json.dumps(record) + "\n")


def summary(task: Task, results: dict[str, list[Result]]) -> dict[str, Any]:
    """Task, every run, and each arm's numbers as [mean, standard deviation]."""
    arms = {
        arm: {"of": ARMS[arm].of, "change": ARMS[arm].change, "runs": results[arm]}
        | {title: mean_and_deviation(values_of(results, arm=arm)) for title, values_of, _ in COLUMNS}
        for arm in results
    }
    return {"task": asdict(task), "arms": arms}


def column(key: str, *, scale: float = 1.0) -> Callable[..., list[float]]:
    return lambda results, *, arm: [scale * result[key] for result in results[arm]]


def transfer_gain(results: dict[str, list[Result]], *, arm: str) -> list[float]:
    """Accuracy less that of the arm from scratch, seed by seed, points."""
    return differences(results, arm=arm, beside=BASELINE)


def step(results: dict[str, list[Result]], *, arm: str) -> list[float]:
    """Accuracy less that of the neighbour, seed by seed, points: what the one factor did."""
    return differences(results, arm=arm, beside=ARMS[arm].of or arm)


def differences(results: dict[str, list[Result]], *, arm: str, beside: str) -> list[float]:
    pairs = zip(results[arm], results[beside], strict=True)
    return [100 * (own["test/accuracy"] - other["test/accuracy"]) for own, other in pairs]


COLUMNS: list[tuple[str, Callable[..., list[float]], str]] = [
    ("test accuracy, %", column("test/accuracy", scale=100), "{:.1f}"),
    ("test balanced accuracy, %", column("test/balanced_accuracy", scale=100), "{:.1f}"),
    ("transfer gain, points", transfer_gain, "{:+.1f}"),
    ("step from its neighbour, points", step, "{:+.1f}"),
    ("wall seconds", column("wall_seconds"), "{:.0f}"),
    ("CPU seconds", column("cpu_seconds"), "{:.0f}"),
    ("epochs to 95 % of its best", column("epochs_to_near_best"), "{:.1f}"),
    ("peak memory, MiB", column("peak_memory_bytes", scale=2**-20), "{:.0f}"),
]


def markdown(results: dict[str, list[Result]]) -> str:
    """The table, a row an arm: mean ± standard deviation over the seeds."""
    titles = ["arm", "is", *(title for title, _, _ in COLUMNS)]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for arm in results:
        neighbour = ARMS[arm].of
        said = f"`{neighbour}` + {ARMS[arm].factor}" if neighbour else ARMS[arm].factor
        cells = [shown(values_of(results, arm=arm), form=form) for _, values_of, form in COLUMNS]
        lines.append(f"| `{arm}` | {said} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(values: list[float], *, form: str) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{form.format(mean)} ± {form.replace('+', '').format(deviation)}"


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which of a single value is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
