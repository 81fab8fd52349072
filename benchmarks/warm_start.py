"""What beginning a search with the best of the last one brings, at equal budget.

    python benchmarks/warm_start.py

Solar cells of one kind of module are searched first. Then images arrive: more of the same kind, or the other kind too. The new
images are searched twice from there, by as many trials with the same seed and the same halving: cold, and warm as `refresh`
does it (five configurations of the last search, eight random ones, then the sampler). Both see the same splits, the first
search's kept. The table has the best validation value so far by epochs trained, and the test of each search's final choice.

Searches that are finished in ``--folder`` are not run again; the same command goes on with a table that was cut off.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.ledger.stored import is_finished, open_ledger
from search.refresh import searches
from search.refresh.warm_start import configurations, warm_start
from search.run.search import run_search
from search.space.spec import SearchSpec
from trainable.config.trial import DataConfig
from trainable.data.fingerprint import image_digests
from trainable.data.readers.elpv import read_elpv
from trainable.data.readers.read import read_source
from trainable.data.versions import version_of

METRIC = "val/balanced_accuracy"
SPACE: dict[str, Any] = {
    "scheduler": {"min_epochs": 1, "max_epochs": 6, "reduction": 3},
    "resources": {"cpu": 1, "concurrency": 1},
    "soup": 0,
    "vary": {
        "freeze.depth": {"choice": [0.5, 0.75, 0.9, 1.0]},
        "optimizer.lr": {"log": [1e-4, 1e-1]},
        "optimizer.backbone_multiplier": {"log": [0.01, 1.0]},
        "optimizer.layer_decay": {"uniform": [0.65, 1.0]},
        "augment.strength": {"choice": ["none", "light", "strong"]},
        "loss.class_weights": {"choice": ["none", "inverse"]},
    },
}
BASE: dict[str, Any] = {
    "data": {"format": "manifest", "image_size": 64},
    "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
    "augment": {"flip": "both", "rotate": "quarter"},
    "train": {"batch_size": 16, "channels_last": True},
}
Curve = list[tuple[int, float]]  # epochs trained, best value so far


def main() -> None:
    options = read_options()
    os.chdir(options.folder)
    found = {arrival: measured(arrival, options=options) for arrival in ("same", "shifted")}
    if options.json:
        print(json.dumps(found))
        return
    for arrival, seeds in found.items():
        print(f"\n### {arrival}\n\n{table(seeds)}")


def measured(arrival: str, *, options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each seed the curve and the test of the cold and the warm search."""
    old, new = manifests(arrival, images=options.images, added=options.added)
    kept = Path(f"{arrival}.splits.parquet").absolute()
    config = DataConfig(path=str(old), format="manifest")
    source = read_source(config)
    version_of(source, digests=image_digests(source), config=config).write(kept)
    rows = []
    for seed in range(options.seeds):
        first = searched(spec(f"{arrival}-{seed}-first", seed=seed, path=old, trials=options.trials))
        cold = spec(f"{arrival}-{seed}-cold", seed=1000 + seed, path=new, trials=options.trials)
        start = warm_start(configurations([first]), spec=cold)
        arms = {
            "cold": searches.derived_search(cold, name=cold.search.name, keep_splits=kept),
            "warm": searches.warm_search(cold, start, name=f"{arrival}-{seed}-warm", keep_splits=kept),
        }
        rows.append({"seed": seed, **{name: judged(equal(arm, to=cold)) for name, arm in arms.items()}})
    return rows


def equal(arm: SearchSpec, *, to: SearchSpec) -> SearchSpec:
    """The arm with the seed and the number of trials of the other."""
    own = arm.search.model_copy(update={"seed": to.search.seed, "trials": to.search.trials})
    return arm.model_copy(update={"search": own})


def searched(one: SearchSpec) -> tuple[SearchSpec, Any]:
    """A search, run where it is not finished, with its trials."""
    folder = Path("searches") / one.search.name
    if not (folder / "search.json").is_file() or not finished(folder):
        run_search(one, address=None, listeners=[])
    stored, ledger = open_ledger(folder)
    return stored, ledger.trials()


def finished(folder: Path) -> bool:
    ledger = open_ledger(folder)[1]
    return is_finished(ledger, trials=ledger.trials())


def judged(one: SearchSpec) -> dict[str, Any]:
    """The curve of a search, the test of its final choice."""
    trials = searched(one)[1]
    ledger = open_ledger(Path("searches") / one.search.name)[1]
    moments = sorted((epoch.recorded, epoch.metrics[METRIC]) for trial in trials for epoch in trial.epochs)
    best, curve = 0.0, []
    for number, (_, value) in enumerate(moments, start=1):
        best = max(best, value)
        curve.append((number, best))
    return {"curve": curve, "test": ledger.notes.test.metrics["balanced_accuracy"]}


def spec(name: str, *, seed: int, path: Path, trials: int) -> SearchSpec:
    base = BASE | {"data": BASE["data"] | {"path": str(path.absolute())}}
    return SearchSpec.model_validate(
        SPACE | {"search": {"name": name, "trials": trials, "seed": seed, "metric": METRIC}, "base": base}
    )


def manifests(arrival: str, *, images: int, added: int) -> tuple[Path, Path]:
    """The images before and after: monocrystalline cells, then more of them or polycrystalline ones too."""
    cells = read_elpv("", DataConfig(format="elpv")).samples
    mono, poly = ([cell for cell in cells if cell.domain == kind] for kind in ("mono", "poly"))
    before = mono[:images]
    after = before + (mono[images:] if arrival == "same" else poly)[:added]
    paths = Path(f"{arrival}-old.csv"), Path(f"{arrival}-new.csv")
    for path, images_of_it in zip(paths, (before, after), strict=True):
        path.write_text("\n".join(["image,label", *(f"{cell.file},{cell.label}" for cell in images_of_it)]))
    return paths


def table(seeds: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, and how much better warm is, seed by seed."""
    shortest = min(len(row[arm]["curve"]) for row in seeds for arm in ("cold", "warm"))
    points = [epochs for epochs in (1, 3, 5, 10, 20) if epochs < shortest] + [shortest]
    lines = ["| | cold | warm | warm − cold, by seed |", "|---|---|---|---|"]
    for epochs in points:
        values = {arm: [row[arm]["curve"][epochs - 1][1] for row in seeds] for arm in ("cold", "warm")}
        lines.append(line(f"best {METRIC} after {epochs} epochs", values))
    lines.append(
        line(
            "test balanced accuracy of the final choice",
            {arm: [row[arm]["test"] for row in seeds] for arm in ("cold", "warm")},
        )
    )
    return "\n".join(lines)


def line(title: str, values: dict[str, list[float]]) -> str:
    told = [
        f"{statistics.fmean(one):.3f} ± {statistics.stdev(one):.3f}" if len(one) > 1 else f"{one[0]:.3f}"
        for one in values.values()
    ]
    gained = [warm - cold for cold, warm in zip(values["cold"], values["warm"], strict=True)]
    each = ", ".join(f"{gain:+.3f}" for gain in gained)
    return f"| {title} | {told[0]} | {told[1]} | {statistics.fmean(gained):+.3f} ({each}) |"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16, help="of every search")
    parser.add_argument("--images", type=int, default=300, help="before")
    parser.add_argument("--added", type=int, default=150)
    parser.add_argument("--folder", type=Path, default=Path("warm-start-benchmark"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
