"""What it takes to look at every image of a data set before anything is trained on it.

    python benchmarks/check_images.py --images 10000 --side 256

Makes that many JPEGs in ten class folders, some of them twice, with other files between them, and runs `check` on the folder as a
user does, the files in the page cache.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
EVERY = 500  # images one is there twice, and a file that is no image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="how many")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--folder", help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder) / "images"
        write_images(root, number=options.images, side=options.side)
        megabytes = sum(file.stat().st_size for file in root.rglob("*")) / 1e6
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "search", "check", str(root)], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
        print(done.stdout + done.stderr)
        size = f"{options.images:,} × {options.side}² JPEG, {megabytes:.0f} MB"
        print(f"| {size} | {seconds:.1f} s | {peak:.0f} MB | {os.cpu_count()} cores |")


def write_images(root: Path, *, number: int, side: int) -> None:
    """Smooth noise, which JPEG makes about as large as photographs."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True)
    for index in range(number):
        coarse = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(file_of(root, index), quality=90)
        if index % EVERY == EVERY - 1:
            shutil.copy(file_of(root, index), file_of(root, index + 1).with_name(f"again{index}.jpg"))
            (root / f"class{index % CLASSES}" / f"notes{index}.txt").write_text("no image")


def file_of(root: Path, index: int) -> Path:
    return root / f"class{index % CLASSES}" / f"image{index:07}.jpg"


if __name__ == "__main__":
    main()
