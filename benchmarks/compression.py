"""What a trained network loses and gains as a file of another form, in 8 bits and pruned, on solar cells.

    python benchmarks/compression.py

Every network is fine-tuned on the train split, exported as ONNX file and torch.export program, in float32 and in 8 bits, and,
where it is convolutional, once more with a share of its parameters pruned and some epochs of training after that. All are
scored on the test split, once. Latencies are of one thread of a CPU.

A network is ``ARCHITECTURE=WEIGHTS``, weights as model.weights of a trial; those without pretrained weights at hand are
trained from random ones, which the heading of their table says.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainable.config.trial import TrialConfig
from trainable.deploy.exporting import Wanted, export
from trainable.deploy.pruning import attention
from trainable.deploy.recovery import Recovery
from trainable.deploy.variant import Variant
from trainable.errors import UserError
from trainable.model.network import Network
from trainable.training.fit import begin

HEADS = (
    "form",
    "parameters, M",
    "MB",
    "accuracy",
    "balanced accuracy",
    "same class as torch",
    "largest difference of a logit",
    "ms, batch 1",
    "ms, batch 32",
)


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    tables: dict[str, list[dict[str, Any]]] = {}
    for network in options.networks:
        name, _, weights = network.partition("=")
        try:
            variants = measure(trial(name, weights or "random", options=options), options=options)
        except UserError as error:
            sys.exit(f"error: {error}")
        tables[network] = [variant.as_dict() for variant in variants]
        if not options.json:
            print(f"\n### {heading(name, weights or 'random')}\n\n{markdown(variants)}", flush=True)
    if options.json:
        print(json.dumps(tables, indent=1))


def read_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--networks",
        nargs="+",
        default=["tf_efficientnet_lite0=package:efficientnet-lite0", "vit_tiny_patch16_224=random"],
        metavar="ARCHITECTURE=WEIGHTS",
    )
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW, under a cosine")
    parser.add_argument("--prune", type=float, default=0.3, help="share of the parameters of a convolutional network")
    parser.add_argument("--recovery-epochs", type=int, default=2, help="after pruning")
    parser.add_argument("--json", action="store_true", help="every figure of every form instead of the tables")
    return parser.parse_args(words)


def trial(name: str, weights: str, *, options: argparse.Namespace) -> TrialConfig:
    """The training of a network."""
    return TrialConfig.model_validate(
        {
            "data": {"format": "elpv", "image_size": options.image_size},
            "model": {"name": name, "weights": weights},
            "optimizer": {"lr": options.lr},
            "augment": {"flip": "both", "rotate": "quarter"},
            "train": {"epochs": options.epochs, "batch_size": 32, "device": "cpu"},
        }
    )


def measure(config: TrialConfig, *, options: argparse.Namespace) -> list[Variant]:
    """The rows of one network."""
    network = trained(config)
    wanted = Wanted(
        to=("onnx", "pt2"),
        int8=True,
        prune=None if attention(network) else options.prune,
        recovery=Recovery(epochs=options.recovery_epochs),
        split="test",
    )
    with tempfile.TemporaryDirectory(prefix="compression-") as folder:
        return export(network, config=config, wanted=wanted, folder=Path(folder))


def trained(config: TrialConfig) -> Network:
    """The network after its last epoch."""
    trainer = begin(config)
    while trainer.state.ended() is None:
        epoch = trainer.one_epoch()
        score = epoch.metrics["val/balanced_accuracy"]
        print(f"{config.model.name}, epoch {epoch.number}: {score:.4f}", file=sys.stderr, flush=True)
    return trainer.state.network


def heading(name: str, weights: str) -> str:
    return f"{name}, from random weights" if weights == "random" else name


def markdown(variants: Sequence[Variant]) -> str:
    lines = [HEADS, ["---"] * len(HEADS), *map(cells, variants)]
    notes = [f"{one.name}: {one.note}." for one in variants if one.note]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "".join(f"\n\n{note}" for note in notes)


def cells(one: Variant) -> list[str]:
    """A row in words."""
    difference = "" if one.format == "torch" else f"{one.max_difference:.0e}"
    return [
        one.name,
        f"{one.parameters / 1e6:.2f}",
        f"{one.size_mb:.1f}",
        f"{one.accuracy:.4f}",
        f"{one.balanced_accuracy:.4f}",
        f"{100 * one.agreement:.1f} %",
        difference,
        f"{one.latency_ms_1:.1f}",
        f"{one.latency_ms_32:.0f}",
    ]


if __name__ == "__main__":
    main()
