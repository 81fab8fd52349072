"""Measures whether small images, or few trained layers, rank configurations as large images and many layers do.

    python benchmarks/fidelities.py --data elpv --jobs 2 --out fidelities.json

The same random configurations (make_curves.py's space, but for the depth) are trained at each of ``KINDS``, by the product's
own ``fit``, on about 450 training and 300 validation images. The table says what a configuration takes in CPU seconds where
nothing is kept of another kind, and how well its best values rank the configurations: Spearman's correlation with those of
the first kind, and how far from the best there the one would be that looks best here. A kind is worth its place as a
fidelity where it is cheap and ranks alike.
"""

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

from make_curves import METRICS, VARY, draw, train, write_manifest
from search_tables import space_of

DEPTH, SIZE = "freeze.depth", "data.image_size"
# The first is what the others stand for.
KINDS: list[dict[str, Any]] = [
    {SIZE: 128, DEPTH: 0.5},
    {SIZE: 96, DEPTH: 0.5},
    {SIZE: 64, DEPTH: 0.5},
    {SIZE: 128, DEPTH: 0.75},
    {SIZE: 128, DEPTH: 1.0},
]


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    options = read_options()
    configurations = draw(space_of({path: raw for path, raw in VARY.items() if path != DEPTH}), count=options.count)
    with tempfile.TemporaryDirectory(prefix="fidelities-") as name:
        images = Path(name) / "images.csv"
        write_manifest(options.data, images, train=options.train, val=options.val)
        play = partial(train_one, images=images, cache=Path(name) / "cache", epochs=options.epochs)
        jobs = [params | kind for params in configurations for kind in KINDS]
        lines = []
        with get_context("spawn").Pool(options.jobs) as pool:
            for line in pool.imap(play, jobs):
                lines.append(line)
                print(f"{len(lines)}/{len(jobs)} {line['seconds']:.0f} s", file=sys.stderr, flush=True)
    if options.out:
        options.out.write_text(json.dumps(lines))
    print("\n".join(table(lines)))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="elpv", help="elpv, or a folder with train/ and val/ of a folder a class")
    parser.add_argument("--count", type=int, default=12, help="configurations")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train", type=int, default=450, help="training images, about")
    parser.add_argument("--val", type=int, default=300, help="validation images, about")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="every training as JSON")
    return parser.parse_args(words)


def train_one(params: dict[str, Any], *, images: Path, cache: Path, epochs: int) -> dict[str, Any]:
    """One training; what frozen layers make of the images is kept for all of its kind."""
    import torch

    torch.set_num_threads(1)
    return {"params": params} | train(
        params, images=images, cache=cache / f"{params[SIZE]}-{params[DEPTH]}", epochs=epochs
    )


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown, a row for each kind."""
    columns = {(kind[SIZE], kind[DEPTH]): values_of(lines, kind=kind) for kind in KINDS}
    reference = next(iter(columns.values()))
    rows = ["| pixels | depth | CPU seconds each | Spearman's correlation | behind the best |", "|---|---|---|---|---|"]
    for (size, depth), values in columns.items():
        seconds = mean(
            line["seconds"] for line in lines if (line["params"][SIZE], line["params"][DEPTH]) == (size, depth)
        )
        behind = max(reference) - reference[values.index(max(values))]
        rows.append(f"| {size} | {depth:g} | {seconds:.0f} | {spearman(values, reference):.2f} | {behind:.3f} |")
    return rows


def values_of(lines: list[dict[str, Any]], *, kind: dict[str, Any]) -> list[float]:
    """The best value of each configuration as this kind, 0 where it has none."""
    return [max(line[METRICS[0]], default=0.0) for line in lines if kind.items() <= line["params"].items()]


def spearman(one: list[float], other: list[float]) -> float:
    """Spearman's rank correlation, from -1 to 1."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


if __name__ == "__main__":
    main()
