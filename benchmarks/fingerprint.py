"""What it takes to notice that a data set of many small files has changed.

    python benchmarks/fingerprint.py --files 1000000

Writes that many files of 64 bytes into 100 class folders, and times every look at them in a process of its own, files in the
page cache. The seconds of an inventory are without those of reading the source, which comes before; its peak memory is with.
Images of 100 kB are bound by the disk: BLAKE3 hashes some 2.5 GB a second on one core.
"""

import argparse
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from trainable.config.trial import DataConfig
from trainable.data.inventory import take_inventory
from trainable.data.readers.file_state import quick_state
from trainable.data.readers.read import read_source

CLASSES = 100
SECONDS_OF_A_TICK = 2.5  # images just written are not known by their date

Measured = tuple[float, float, int]  # seconds, peak memory in megabytes, images read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000, help="how many images")
    parser.add_argument("--folder", help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root, cache = Path(folder) / "images", Path(folder) / "stock.parquet"
        write_files(root, number=options.files)
        print(f"{options.files:,} files, {CLASSES} folders, {os.cpu_count()} cores\n")
        print("| what | seconds | peak memory, MB | images read |\n|---|---|---|---|")
        show("quick_state", measure(quick, root, cache))
        show("read_source", measure(read, root, cache))
        show("take_inventory, the first", measure(take, root, cache))
        show("take_inventory, nothing changed", measure(take, root, cache))
        change_files(root, number=options.files, share=0.01)
        show("quick_state, 1 % changed", measure(quick, root, cache))
        show("take_inventory, 1 % changed", measure(take, root, cache))
        print(f"\nthe inventory's file: {cache.stat().st_size / 1e6:.0f} MB")


def write_files(root: Path, *, number: int) -> None:
    for label in range(CLASSES):
        (root / f"class{label:02}").mkdir(parents=True)
    for index in range(number):
        file_of(root, index).write_bytes(index.to_bytes(8, "little") * 8)
    time.sleep(SECONDS_OF_A_TICK)


def change_files(root: Path, *, number: int, share: float) -> None:
    for index in random.Random(0).sample(range(number), round(share * number)):
        file_of(root, index).write_bytes(index.to_bytes(8, "big") * 8)
    time.sleep(SECONDS_OF_A_TICK)


def file_of(root: Path, index: int) -> Path:
    return root / f"class{index % CLASSES:02}" / f"image{index:07}.png"


def measure(look: Callable[[Path, Path], tuple[float, int]], root: Path, cache: Path) -> Measured:
    """In a process of its own, whose peak of memory is the look's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, look, root, cache).result()


def measured(look: Callable[[Path, Path], tuple[float, int]], root: Path, cache: Path) -> Measured:
    seconds, num_read = look(root, cache)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, num_read


def quick(root: Path, _cache: Path) -> tuple[float, int]:
    start = time.perf_counter()
    quick_state(DataConfig(path=str(root)))
    return time.perf_counter() - start, 0


def read(root: Path, _cache: Path) -> tuple[float, int]:
    start = time.perf_counter()
    read_source(DataConfig(path=str(root)))
    return time.perf_counter() - start, 0


def take(root: Path, cache: Path) -> tuple[float, int]:
    source = read_source(DataConfig(path=str(root)))
    start = time.perf_counter()
    num_read = take_inventory(source, cache=cache).num_read
    return time.perf_counter() - start, num_read


def show(name: str, found: Measured) -> None:
    seconds, megabytes, num_read = found
    print(f"| {name} | {seconds:.1f} | {megabytes:.0f} | {num_read:,} |", flush=True)


if __name__ == "__main__":
    main()
