"""Measures how much faster a search of ours is than the same search from stock parts, by how much is frozen, and why.

    python benchmarks/speed.py --mix head --out head.json
    python benchmarks/speed.py --mix uniform deep head --images 800 --trials 12

Both sides train the configurations of benchmarks/compare.py, which also measures them, on the solar cells, in turn and each
from nothing: no decoded images, no outputs kept. A mix says which shares of the layers are frozen, in equal parts. After
the two, ours once more without each of what makes it fast: without the store of what frozen layers compute, with another
view of every image in every epoch, in torch's own memory layout.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import compare

MIXES = {
    "uniform": [0.0, 0.25, 0.5, 0.75, 1.0],
    "deep": [0.5, 0.75, 0.9, 1.0],
    "head": [1.0],
}
WITHOUT = {
    "no store": ["data.prefix_gb=0"],
    "each epoch's views": ["augment.views=each_epoch"],
    "no channels_last": ["train.channels_last=false"],
}
ROWS = [
    ("wall seconds", "wall_seconds", "{:.1f}"),
    ("CPU seconds", "cpu_seconds", "{:.1f}"),
    ("epochs", "epochs", "{:.0f}"),
    ("first report, s", "first_report_seconds", "{:.1f}"),
    ("best score", "best", "{:.4f}"),
]


def main() -> None:
    options = read_options()
    compare.become_reaper()
    found = {mix: measure(mix, options=options) for mix in options.mix}
    for mix, sides in found.items():
        print_table(mix, sides)
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": None}, "mixes": found}, indent=1))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--image-size", type=int, default=96, help="pixels")
    parser.add_argument("--images", type=int, default=2624, help="of the 2,624 solar cells, over all splits")
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--ablation", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="a JSON file for everything measured")
    return parser.parse_args(words)


def measure(mix: str, *, options: argparse.Namespace) -> dict[str, compare.Side]:
    """What each side took for one mix of depths."""
    compare.VARIED["freeze.depth"] = ("freeze", MIXES[mix])
    sides: dict[str, Callable[..., compare.Side]] = {"ours": compare.run_ours}
    if options.stock:
        sides["stock"] = compare.run_stock
    if options.ablation:
        sides |= {name: partial(compare.run_ours, settings=settings) for name, settings in WITHOUT.items()}
    found = {}
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        compare.export_images(folder / "images", count=options.images)
        recipes = compare.draw_recipes(options.trials)
        task = compare.Task(folder / "images", options.trials, options.max_epochs, options.image_size, recipes)
        for number, (side, run) in enumerate(sides.items()):
            place = folder / f"side-{number}"  # another address each: MLflow's client keeps its connection to one
            place.mkdir()
            found[side] = run(task, place=place)
            print(f"{mix}, {side}: {compare.brief(found[side])}", file=sys.stderr, flush=True)
            shutil.rmtree(place)
    return found


def print_table(mix: str, sides: dict[str, compare.Side]) -> None:
    """One row a figure, one column a side; of the first two rows how many times ours' each side took."""
    print(f"\n{mix}: " + ", ".join(f"{depth:g}" for depth in MIXES[mix]) + " of the layers frozen")
    print(f"{'':<18}" + "".join(f"{name:>20}" for name in sides))
    for title, key, form in ROWS:
        print(f"{title:<18}" + "".join(f"{form.format(side[key]):>20}" for side in sides.values()))
    for title, key in (("times ours, wall", "wall_seconds"), ("times ours, CPU", "cpu_seconds")):
        ours = sides["ours"][key]
        print(f"{title:<18}" + "".join(f"{side[key] / ours:>20.2f}" for side in sides.values()))


if __name__ == "__main__":
    main()
