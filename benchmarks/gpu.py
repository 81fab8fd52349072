"""Measures what a GPU makes of a trial: throughput by cut, views, an epoch against a plain loop, trials side by side, equality.

    python benchmarks/gpu.py --out gpu.json            # one H100 or A100, under six minutes
    python benchmarks/gpu.py --device cpu --quick      # a miniature of all of it, under two minutes on two cores

It uses `trainable` alone, makes its own images (noise) and weights (random), and needs no network. A network is cut where its
frozen part ends: nothing, half, three quarters or all but the head is frozen; "live" computes the frozen part anew in every
epoch, "kept" reads what it made. With --compile MODE (default, reduce-overhead for CUDA graphs) the part behind the cut is
compiled. Rows of the table are printed as they are measured.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainable.config.trial import AugmentConfig, TrialConfig
from trainable.cpus import usable_cpus
from trainable.data.input_spec import InputSpec
from trainable.loader.held import HeldImages
from trainable.loader.views import views
from trainable.training.device import numerics
from trainable.training.fit import begin
from trainable.training.trainer import Epoch, Trainer

PEAKS = {"A100": 312e12, "H100": 990e12, "H200": 990e12}  # bf16 operations a second, dense, by NVIDIA's data sheets
CUTS = {"none": 0.0, "half": 0.5, "0.75": 0.75, "head": 1.0}
FULL = {
    "models": ["resnet50", "tf_efficientnet_lite0", "vit_base_patch16_224"],
    "images": 1500,
    "size": 224,
    "batch": 64,
}
QUICK = {"models": ["test_resnet", "test_efficientnet", "test_vit"], "images": 40, "size": 64, "batch": 8}
SIDE_BY_SIDE = (1, 2, 4)
TOLERANCE = 0.02  # of a loss: kept and live passes have other batches around an image, in bf16

Row = dict[str, Any]


def main() -> None:
    options = read_options()
    if options.worker:
        print(json.dumps(work(options)))
        return
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        draw_images(options.folder / "images", count=options.images, size=options.size)
        print_header(options)
        for section in (throughput, view_rates, plain_loop, side_by_side):
            for row in section(options):
                rows.append(row)
                print(as_line(row), flush=True)
    seconds = time.perf_counter() - started
    print(f"\n{seconds:.0f} s in all")
    if options.out:
        device = numerics(torch.device(options.device), TrialConfig.model_validate(settings(options)).train)
        versions = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
        found = {"numerics": device, "versions": versions, "seconds": seconds, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1))


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small networks and images")
    parser.add_argument("--models", nargs="+", help="timm's names; the first is also trained side by side")
    parser.add_argument("--images", type=int)
    parser.add_argument("--size", type=int, help="pixels")
    parser.add_argument("--batch", type=int, help="images")
    parser.add_argument("--compile", choices=["default", "reduce-overhead"], help="torch.compile behind the cut")
    parser.add_argument("--out", type=Path, help="a JSON file for everything measured")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    for name, value in (QUICK if options.quick else FULL).items():
        setattr(options, name, getattr(options, name) or value)
    return options


def draw_images(folder: Path, *, count: int, size: int) -> None:
    """JPEGs of noise in two classes, a fifth longer than high on average."""
    random = np.random.default_rng(0)
    side = round(size / 0.875)
    for number in range(count):
        width = int(side * random.uniform(1.0, 1.4))
        coarse = random.integers(0, 256, (side // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        path = folder / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, side), Image.Resampling.BILINEAR).save(path, quality=90)


def settings(options: argparse.Namespace, **changes: dict[str, Any]) -> dict[str, Any]:
    """A trial as JSON; ``changes`` by section."""
    base: dict[str, dict[str, Any]] = {
        "data": {
            "path": str(options.folder / "images") if options.folder else ".",
            "cache": str(options.folder / "cache") if options.folder else None,
            "image_size": options.size,
            "workers": 0 if options.quick else min(8, usable_cpus()),
        },
        "model": {"name": options.models[0], "weights": "random"},
        "train": {"epochs": 4, "batch_size": options.batch, "device": options.device},
        "augment": {"strength": "light", "views": 1},
        "optimizer": {"lr": 1e-4},
    }
    return {name: base.get(name, {}) | changes.get(name, {}) for name in {**base, **changes}}


def ready(options: argparse.Namespace, **changes: dict[str, Any]) -> Trainer:
    trainer = begin(TrialConfig.model_validate(settings(options, **changes)))
    if options.compile:
        trainer.state.network.compile(mode=options.compile)
    return trainer


def second_epoch(trainer: Trainer) -> Epoch:
    """The first warms up, and fills what is kept."""
    trainer.one_epoch()
    return trainer.one_epoch()


def throughput(options: argparse.Namespace) -> Iterator[Row]:
    """Images a second of training by network, cut and whether the frozen part is kept; losses of the two must be alike."""
    for model in options.models:
        operations = forward_operations(model, size=options.size)
        for cut, depth in CUTS.items():
            epochs = {}
            for mode in ("live",) if cut == "none" else ("live", "kept"):
                data = {"prefix_gb": 0.0} if mode == "live" else {}
                trainer = ready(options, model={"name": model}, freeze={"depth": depth}, data=data)
                epochs[mode] = epoch = second_epoch(trainer)
                row = {"what": "training", "model": model, "cut": cut, "mode": mode}
                yield row | figures(epoch, operations=operations, options=options)
                del trainer
            if len(epochs) == 2:
                yield equal_losses(epochs, model=model, cut=cut)


def forward_operations(model: str, *, size: int) -> int:
    """Floating-point operations of one image's forward pass."""
    flexible = {"img_size": size} if "vit" in model else {}
    with torch.device("meta"):
        network = timm.create_model(model, **flexible).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


def figures(epoch: Epoch, *, operations: int, options: argparse.Namespace) -> Row:
    metrics = epoch.metrics
    frozen, rate = metrics["usage/prefix_share"], metrics["usage/images_per_second"]
    is_computed = metrics["usage/prefix_seconds"] > 0  # else it was read
    each = operations * (3 * (1 - frozen) + (frozen if is_computed else 0))  # a backward pass is two forward ones
    peak = peak_operations(options.device)
    return {
        "images/s": rate,
        "peak share": None if peak is None else each * rate / peak,
        "frozen part": "computed" if is_computed else "read" if frozen else "-",
        "epoch s": metrics["usage/seconds"],
        "memory GB": metrics["usage/peak_memory_bytes"] / 1e9,
    }


def peak_operations(device: str) -> float | None:
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def equal_losses(epochs: dict[str, Epoch], *, model: str, cut: str) -> Row:
    names = ("train/loss", "val/loss")
    pairs = [(epochs["live"].metrics[name], epochs["kept"].metrics[name]) for name in names]
    difference = max(abs(live - kept) / max(abs(live), 1e-6) for live, kept in pairs)
    row = {"what": "kept = live", "model": model, "cut": cut}
    return row | {"difference": difference, "holds": difference <= TOLERANCE}


def view_rates(options: argparse.Namespace) -> Iterator[Row]:
    """Views a second on the device from images held there, and on one thread of a CPU; the two must be alike."""
    pack = ready(options).inputs.full.pack
    spec = InputSpec(size=options.size, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_share=0.875)
    device, held = torch.device(options.device), HeldImages(pack, torch.device(options.device))
    rows = range(min(len(pack), options.batch))
    for strength in ("light", "strong"):
        config = AugmentConfig(strength=strength)
        given = {"config": config, "spec": spec, "seed": 0, "sample_ids": pack.sample_ids[: len(rows)], "number": 1}
        on_device = partial(views_of, held, rows, device=device, **given)
        on_cpu = partial(views_of, pack, rows, device=torch.device("cpu"), **given)
        rates = {"views/s": len(rows) / seconds_of(on_device), "views/s of a CPU": len(rows) / seconds_of(on_cpu)}
        yield {"what": "views", "strength": strength} | rates
        steps = (on_device().cpu().int() - on_cpu().int()).abs()
        share = float((steps <= 1).float().mean())
        yield {"what": "views = CPU's", "strength": strength, "alike": share, "holds": share > 0.99}


def views_of(source: Any, rows: range, **given: Any) -> torch.Tensor:
    return views([source.image(row) for row in rows], **given)


def seconds_of(call: Callable[[], object], *, least: float = 0.5) -> float:
    """Mean seconds of a call after one to warm up."""
    call()
    wait()
    started, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - started < least:
        call()
        wait()
        count += 1
    return (time.perf_counter() - started) / count


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def plain_loop(options: argparse.Namespace) -> Iterator[Row]:
    """An epoch of ours and one of a loop as one writes it, on the same images with the same crops and flips."""
    trainer = ready(options, augment={"views": "each_epoch"})
    ours = second_epoch(trainer)
    count = trainer.inputs.num_images
    seconds = count / ours.metrics["usage/images_per_second"]
    yield {"what": "epoch", "loop": "trainable", "images": count, "seconds": seconds}
    del trainer
    yield {"what": "epoch", "loop": "plain", "images": count, "seconds": plain_epoch(options, count=count)}


def plain_epoch(options: argparse.Namespace, *, count: int) -> float:
    """Seconds of the second epoch: timm, ImageFolder, DataLoader with worker processes, AdamW, bf16 on a GPU."""
    device = torch.device(options.device)
    steps = [v2.RandomResizedCrop(options.size), v2.RandomHorizontalFlip(), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    folder = ImageFolder(str(options.folder / "images"), transform=v2.Compose(steps))
    part = torch.utils.data.Subset(folder, range(count))
    workers = 0 if options.quick else min(8, usable_cpus())
    loader = torch.utils.data.DataLoader(
        part,
        batch_size=options.batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    network = timm.create_model(options.models[0], num_classes=2).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    for _ in range(2):
        wait()
        started = time.perf_counter()
        for images, labels in loader:
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(images)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(logits.float(), labels.to(device, non_blocking=True)).backward()
            optimizer.step()
        wait()
    return time.perf_counter() - started


def side_by_side(options: argparse.Namespace) -> Iterator[Row]:
    """Images a second of several trials on the one device, each a process, with the first half of the network frozen."""
    for number in SIDE_BY_SIDE:
        for path in options.folder.glob("ready-*"):
            path.unlink()
        processes = [start_worker(options, index=index, number=number) for index in range(number)]
        told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
        seconds = max(one["ended"] for one in told) - min(one["started"] for one in told)
        memory = sum(one["memory"] for one in told) / 1e9
        rate = sum(one["images"] for one in told) / seconds
        yield {"what": "side by side", "trials": number, "images/s": rate, "memory GB": memory}


def start_worker(options: argparse.Namespace, *, index: int, number: int) -> "subprocess.Popen[str]":
    words = ["--worker", str(index + 1), "--workers", str(number), "--folder", str(options.folder)]
    words += ["--device", options.device, "--models", options.models[0], "--images", str(options.images)]
    words += ["--size", str(options.size), "--batch", str(options.batch), *(["--quick"] if options.quick else [])]
    words += ["--compile", options.compile] if options.compile else []
    return subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)


def work(options: argparse.Namespace) -> Row:
    """Two epochs of one trial, begun when all trials are warm; wall clock, which processes share."""
    trainer = ready(options, freeze={"depth": 0.5}, data={"prefix_gb": 0.0}, train={"epochs": 3})
    trainer.one_epoch()
    (options.folder / f"ready-{options.worker}").touch()
    while len(list(options.folder.glob("ready-*"))) < options.workers:
        time.sleep(0.01)
    started = time.time()
    epochs = [trainer.one_epoch() for _ in range(2)]
    images = len(epochs) * trainer.inputs.num_images
    memory = epochs[-1].metrics["usage/peak_memory_bytes"]
    return {"started": started, "ended": time.time(), "images": images, "memory": memory}


def print_header(options: argparse.Namespace) -> None:
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {usable_cpus()} cores"
    compiled = f", compiled ({options.compile})" if options.compile else ""
    data = f"{options.images} images of {options.size} pixels, batches of {options.batch}"
    print(f"{name}; torch {torch.__version__}; {data}{compiled}")
    print(f"\n{'':14} | {'':30} | measured\n{'-' * 14} | {'-' * 30} | {'-' * 60}")


def as_line(row: Row) -> str:
    of = [str(row[name]) for name in ("model", "cut", "mode", "strength", "loop", "trials") if name in row]
    rest = {
        name: value for name, value in row.items() if isinstance(value, float | bool | str) and str(value) not in of
    }
    texts = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in rest.items()]
    return f"{row['what']:14} | {' '.join(of):30} | {', '.join(texts[1:])}"


if __name__ == "__main__":
    torch.set_num_threads(1)  # views a second are those of one thread, and trials side by side share the cores
    main()
