"""Measures what one has of a given time: the model of a search of ours beside those of simpler ways to spend it.

    python benchmarks/headline.py --minutes 5 --seeds 3 --out cells.json
    python benchmarks/headline.py --images path/to/images --minutes 5 10 20 --out headline.json

Each side begins with nothing but the image files, in folders ``{train,val,test}/<class>/`` (without ``--images`` those of
the solar cells), and hands over one model in the time, which is measured on the test images then:

- ours: ``python -m search run`` of spaces/quickstart.yaml, or of another, with a budget in minutes;
- stock: Ray Tune's ASHA with OptunaSearch and MLflow (benchmarks/stock_peer.py), stopped by Tune's ``time_budget_s``;
- probe: features of the frozen backbone at its own 224 pixels, standardised, scikit-learn's logistic regression on them;
- recipe: one configuration that needs no search, half of the layers frozen, trained on all cores for all of the time.

What a side takes beyond the time is told. Beside the test scores: after how many seconds our search had passed the
validation score that stock's ended with.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import compare
import stock_peer
import torch
import yaml
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

Found = dict[str, Any]
SIDES = ("ours", "stock", "probe", "recipe")
STOCK = {"depths": [0.5, 0.75, 0.9, 1.0], "min_epochs": 1, "max_epochs": 9, "reduction": 3, "batch_size": 32}
STOCK_SIZE, PROBE_SIZE, RECIPE_SIZE = 96, 224, 160  # pixels
RECIPE = {"freeze": 0.5, "augment": "light", "class_weights": "inverse"}
RECIPE_LR = 1e-3


def main() -> None:
    options = read_options()
    compare.become_reaper()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="headline-") as name:
        images = options.images or Path(name, "images")
        if options.images is None:
            compare.export_images(images, count=2624)
        for minutes in options.minutes:
            for seed in range(options.seeds):
                found = measure(images, options=options, minutes=minutes, seed=seed, folder=Path(name))
                rounds.append({"minutes": minutes, "seed": seed, "sides": found})
                if options.out:
                    options.out.write_text(json.dumps({"images": str(options.images), "rounds": rounds}, indent=1))
    print_table(rounds)


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder {train,val,test}/<class>/ of photos; else the solar cells")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--space", type=Path, help="ours: a space file whose data and budget are replaced")
    parser.add_argument("--out", type=Path, help="a JSON file for everything measured")
    return parser.parse_args(words)


def measure(images: Path, *, options: argparse.Namespace, minutes: float, seed: int, folder: Path) -> dict[str, Found]:
    """What each side hands over after ``minutes``."""
    runs = {"ours": run_ours, "stock": run_stock, "probe": run_probe, "recipe": run_recipe}
    found = {}
    for side in options.sides:
        place = folder / f"{side}-{minutes:g}-{seed}"
        place.mkdir()
        started = time.time()
        found[side] = runs[side](images, options=options, minutes=minutes, seed=seed, place=place)
        found[side]["wall_seconds"] = time.time() - started
        print(f"{minutes:g} min, seed {seed}, {side}: {brief(found[side])}", file=sys.stderr, flush=True)
    return found


def run_ours(images: Path, *, options: argparse.Namespace, minutes: float, seed: int, place: Path) -> Found:
    """A search of the shipped space, or of another, on these images."""
    space = yaml.safe_load((options.space or compare.ROOT / "spaces" / "quickstart.yaml").read_text())
    space["search"] |= {"name": "ours", "seed": seed, "budget": {"minutes": minutes}}
    sizes = {key: value for key, value in space["base"]["data"].items() if key == "image_size"}
    space["base"]["data"] = {"path": str(images.resolve()), **sizes}
    (place / "space.yaml").write_text(yaml.safe_dump(space))
    started = time.time()
    compare.run_tree([sys.executable, "-m", "search", "run", "space.yaml"], place=place)
    command = [sys.executable, "-m", "search", "report", "ours", "--json"]
    environment = os.environ | {"PYTHONPATH": str(compare.ROOT)}
    report = json.loads(subprocess.check_output(command, cwd=place, env=environment))
    return {
        "test": report["test"]["balanced_accuracy"],
        "val": report["best_value"],
        "curve": curve(place / "mlflow.db", started=started),
        "trials": sum(report["trials"].values()),
        "best_config": report["best_config"],
    }


def run_stock(images: Path, *, options: argparse.Namespace, minutes: float, seed: int, place: Path) -> Found:
    """Stock's own search, every configuration its sampler's."""
    settings = {
        "images": str(images.resolve()),
        "folder": str(place),
        "tracking_uri": f"sqlite:///{place}/mlflow.db",
        "trials": -1,
        "seconds": minutes * 60,
        "first": [],
        "image_size": STOCK_SIZE,
        "seed": seed,
        **STOCK,
    }
    (place / "settings.json").write_text(json.dumps(settings))
    script = str(compare.ROOT / "benchmarks" / "stock_peer.py")
    started = time.time()
    compare.run_tree([sys.executable, script, "settings.json"], place=place)
    summary = json.loads((place / "summary.json").read_text())
    found = curve(place / "mlflow.db", started=started)
    return {
        "test": summary["test/balanced_accuracy"],
        "val": max(value for _, value in found),
        "curve": found,
        "trials": summary["trials"],
    }


def curve(database: Path, *, started: float) -> list[tuple[float, float]]:
    """Seconds since the start and the validation score of every trial's epoch that MLflow knows of, as they came."""
    client = MlflowClient(f"sqlite:///{database}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    trials = [  # baselines are lines from beginning to end
        run.info.run_id
        for run in runs
        if compare.METRIC in run.data.metrics and run.data.tags.get("search.kind") != "baseline"
    ]
    values = [value for run in trials for value in client.get_metric_history(run, compare.METRIC)]
    return sorted((value.timestamp / 1000 - started, value.value) for value in values)


def run_probe(images: Path, *, options: argparse.Namespace, minutes: float, seed: int, place: Path) -> Found:
    """Logistic regression on the pooled features of the frozen backbone, which takes the time that it takes."""
    settings = {"images": str(images), "image_size": PROBE_SIZE, "batch_size": 32}
    model = stock_peer.create_model(1.0, settings=settings)
    model.reset_classifier(0)
    model.eval()
    features = {split: outputs(model, split=split, settings=settings) for split in ("train", "val", "test")}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    probe.fit(*features["train"])
    scores = {
        split: balanced_accuracy_score(labels, probe.predict(values)) for split, (values, labels) in features.items()
    }
    return {"test": float(scores["test"]), "val": float(scores["val"])}


def outputs(model: nn.Module, *, split: str, settings: dict[str, Any]) -> tuple[Any, list[int]]:
    """What a network makes of a split's images in order, N×F, and their labels."""
    loader = stock_peer.images_loader(split, model, settings=settings, shuffle=False)
    with torch.inference_mode():
        values = torch.cat([model(batch) for batch, _ in loader]).numpy()
    return values, loader.dataset.targets


def run_recipe(images: Path, *, options: argparse.Namespace, minutes: float, seed: int, place: Path) -> Found:
    """The recipe, its rate falling to nothing by a cosine over the time."""
    until = time.time() + minutes * 60
    torch.manual_seed(seed)
    settings = {"images": str(images), "image_size": RECIPE_SIZE, "batch_size": 32}
    model = stock_peer.create_model(RECIPE["freeze"], settings=settings)
    loader = stock_peer.images_loader("train", model, settings=settings, augment=RECIPE["augment"])
    weight = stock_peer.class_weights(loader.dataset.targets, rule=RECIPE["class_weights"])
    loss_function = nn.CrossEntropyLoss(weight=weight)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RECIPE_LR, weight_decay=0.01)
    begun, updates, epoch = time.time(), 0, 0
    while time.time() < until:
        epoch += 1
        stock_peer.train_mode(model, depth=RECIPE["freeze"])
        for batch, labels in loader:
            progress = min(1.0, (time.time() - begun) / (until - begun))
            for group in optimizer.param_groups:
                group["lr"] = RECIPE_LR * (1 + math.cos(math.pi * progress)) / 2
            optimizer.zero_grad()
            loss_function(model(batch), labels).backward()
            optimizer.step()
            updates += 1
            if time.time() >= until:
                break
    scores = {
        split: stock_peer.score(model, stock_peer.images_loader(split, model, settings=settings))
        for split in ("val", "test")
    }
    return {**scores, "epochs": epoch, "updates": updates}


def passed_after(ours: Found, *, stock: Found) -> float | None:
    """Seconds after which ours had a validation score as good as stock's last; None where it never had."""
    return next((seconds for seconds, value in ours["curve"] if value >= stock["val"]), None)


def brief(found: Found) -> str:
    return f"test {found['test']:.4f}, val {found['val']:.4f}, {found['wall_seconds']:.0f} s"


def print_table(rounds: list[dict[str, Any]]) -> None:
    """Of each time and side the mean and standard deviation of the test scores over the seeds, the mean of the rest."""
    for minutes in dict.fromkeys(round_["minutes"] for round_ in rounds):
        of_time = [round_["sides"] for round_ in rounds if round_["minutes"] == minutes]
        print(f"\n{minutes:g} minutes, {len(of_time)} seeds{'':<12} test balanced accuracy      validation     seconds")
        for side in of_time[0]:
            test = [sides[side]["test"] for sides in of_time]
            spread = f" ± {statistics.stdev(test):.4f}" if len(test) > 1 else ""
            val = statistics.mean(sides[side]["val"] for sides in of_time)
            wall = statistics.mean(sides[side]["wall_seconds"] for sides in of_time)
            print(f"{side:<34} {statistics.mean(test):.4f}{spread:<20} {val:.4f} {wall:11.0f}")
        if {"ours", "stock"} <= set(of_time[0]):
            passed = [passed_after(sides["ours"], stock=sides["stock"]) for sides in of_time]
            shown = ", ".join("never" if seconds is None else f"{seconds:.0f} s" for seconds in passed)
            print(f"ours passed the validation score that stock ended with after {shown}")


if __name__ == "__main__":
    main()
