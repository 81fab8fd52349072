"""Records learning curves of real fine-tuning, which benchmarks/search_quality.py searches in simulated time.

    python benchmarks/make_curves.py --name solar-cells --data elpv
    python benchmarks/make_curves.py --name tiles --data path/to/images

Random configurations of one space (``VARY``) are trained for twelve epochs each, by the product's own ``fit`` with its store
of frozen layers, one after the other on one core: EfficientNet-Lite0 at 64 pixels on about 450 training and 300 validation
images. Of every epoch it keeps validation balanced accuracy, validation loss, and the CPU seconds. Finished configurations are
lines of ``benchmarks/curves/NAME.jsonl``; the same command goes on where it was cut off, and after the last
writes ``benchmarks/curves/NAME.json.gz``.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from csv import writer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import export_images, thinned
from search_tables import space_of

from search.engine.coordinates import Coordinates
from search.space.paths import nest
from search.space.space import Space
from trainable.config.trial import TrialConfig
from trainable.training.fit import DivergedError, fit

FOLDER = Path(__file__).parent / "curves"
METRICS = ("val/balanced_accuracy", "val/loss")
SEED = 0
VARY: dict[str, Any] = {
    "freeze.depth": {"choice": [0.25, 0.5, 0.75, 0.9, 1.0]},
    "optimizer.lr": {"log": [1e-4, 2e-2]},
    "optimizer.backbone_multiplier": {"log": [0.01, 1.0]},
    "optimizer.layer_decay": {"uniform": [0.6, 1.0]},
    "optimizer.weight_decay": {"log": [1e-4, 1e-1]},
    "augment.strength": {"choice": ["none", "light", "medium"]},
    "loss.label_smoothing": {"choice": [0.0, 0.05, 0.1]},
    "loss.class_weights": {"choice": ["none", "inverse"]},
    "lr_schedule.warmup_epochs": {"choice": [0, 1, 2]},
}


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    lines = FOLDER / f"{options.name}.jsonl"
    FOLDER.mkdir(exist_ok=True)
    done = read_lines(lines)
    with tempfile.TemporaryDirectory(prefix="curves-") as name:
        images = Path(name) / "images.csv"
        write_manifest(options.data, images, train=options.train, val=options.val)
        for number, params in enumerate(draw(space_of(VARY), count=options.configurations)):
            if number < len(done):
                continue
            curve = train(params, images=images, cache=Path(name) / "cache", epochs=options.epochs)
            with lines.open("a") as file:
                file.write(json.dumps({"params": params, **curve}) + "\n")
            print(f"{number}: {curve['seconds']:.1f} s, {curve[METRICS[0]][-1:]}", file=sys.stderr, flush=True)
    pack(options, lines=read_lines(lines))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the file that is written")
    parser.add_argument("--data", required=True, help="elpv, or a folder with train/ and val/ of a folder a class")
    parser.add_argument("--configurations", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train", type=int, default=450, help="training images, about")
    parser.add_argument("--val", type=int, default=300, help="validation images, about")
    return parser.parse_args(words)


def draw(space: Space, *, count: int) -> list[dict[str, Any]]:
    """The first ``count`` configurations, always the same ones."""
    coordinates, chance = Coordinates(space), np.random.default_rng(SEED)
    return [coordinates.params(coordinates.draw(chance, count=1)[0]) for _ in range(count)]


def write_manifest(data: str, path: Path, *, train: int, val: int) -> None:
    """Write a list of images, of each split about as many as asked for, of each class its share."""
    root = Path(data).expanduser().resolve()
    if data == "elpv":
        root = path.parent / "images"
        export_images(root, count=10_000)
    rows = []
    for split, count in (("train", train), ("val", val)):
        files = [sorted(folder.iterdir()) for folder in sorted((root / split).iterdir())]
        share = min(1.0, count / sum(map(len, files)))
        rows += [(file, file.parent.name, split) for of_class in files for file in pick(of_class, share=share)]
    with path.open("w", newline="") as file:
        table = writer(file)
        table.writerow(["image", "label", "split"])
        table.writerows([*rows, *((file, label, "test") for file, label, split in rows[-1:])])


def pick(files: list[Path], *, share: float) -> list[Path]:
    """That share of the files, at even distances."""
    return [files[index] for index in thinned(list(range(len(files))), share=share)]


def train(params: dict[str, Any], *, images: Path, cache: Path, epochs: int) -> dict[str, Any]:
    """The curve of one configuration; it ends early where the loss is no longer finite."""
    fixed = {
        "data.path": str(images),
        "data.image_size": 64,
        "data.cache": str(cache),
        "model.name": "tf_efficientnet_lite0",
        "model.weights": "package:efficientnet-lite0",
        "train.epochs": epochs,
        "train.batch_size": 16,
        "train.metric": METRICS[0],
    }
    curve: dict[str, Any] = {name: [] for name in (*METRICS, "cpu_seconds")}
    began = before = time.process_time()
    try:
        for epoch in fit(TrialConfig.model_validate(nest(fixed | params))):
            now = time.process_time()
            curve["cpu_seconds"].append(round(now - before, 4))
            before = now
            for name in METRICS:
                curve[name].append(round(epoch.metrics[name], 5))
    except DivergedError as error:
        curve["diverged"] = str(error)
    return curve | {"seconds": round(time.process_time() - began, 2)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The configurations that are finished; a line that was cut off is taken away."""
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def pack(options: argparse.Namespace, *, lines: list[dict[str, Any]]) -> None:
    """Write everything into one file that is kept."""
    made_with = {"torch": torch.__version__, "data": options.name, "epochs": options.epochs}
    text = json.dumps({"vary": VARY, "made_with": made_with, "curves": lines})
    with gzip.GzipFile(FOLDER / f"{options.name}.json.gz", "wb", mtime=0) as file:
        file.write(text.encode())


if __name__ == "__main__":
    main()
