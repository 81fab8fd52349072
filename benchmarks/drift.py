"""How often the drift test of a refresh finds what is there, and what is not.

    python benchmarks/drift.py

A classifier is fine-tuned on monocrystalline solar cells. Then images come again and again: drawn from those that it was not
trained on, as they are or changed, and compared with others of them, drawn as well, as a refresh compares new images with the
validation images. The table has the share of the draws in which drift is found at the default `refresh.drift_p` and
`refresh.drift_effect`, and the mean effect on the features of all images.
"""

import argparse
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from search.space.promotion_sections import RefreshSection
from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.readers.elpv import read_elpv
from trainable.serving.classifier import Classifier
from trainable.serving.package import load_package, package
from trainable.statistics.drift import ALL, drifted, feature_drift, prior_drift
from trainable.training.fit import fit

RULE = RefreshSection()
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "more of the same": lambda image: image,
    "blurred by 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
}
FOREIGN = {"a tenth polycrystalline": 0.1, "polycrystalline": 1.0}  # the share of these cells
SIZES = ((100, 50), (100, 200), (300, 200))  # old and new images of a draw

Cells = list[tuple[Path, str]]  # image and class
Features = NDArray[np.float32]


def main() -> None:
    options = read_options()
    mono, poly = cells("mono"), cells("poly")
    order = np.random.default_rng(0).permutation(len(mono))
    trained_on, pool = ([mono[row] for row in rows] for rows in (order[: options.trained], order[options.trained :]))
    with tempfile.TemporaryDirectory() as folder:
        classifier = champion(trained_on, folder=Path(folder), epochs=options.epochs)
    old = features(classifier, pool)
    arrivals = {name: (features(classifier, pool, change=change), 0.0) for name, change in CHANGES.items()}
    arrivals |= {name: (old, share) for name, share in FOREIGN.items()}
    foreign = features(classifier, poly)
    print(f"{len(trained_on)} cells trained on, {len(pool)} others, {options.draws} draws\n")
    print("| new images | old | new | drift found | mean effect |\n|---|---|---|---|---|")
    for num_old, num_new in SIZES:
        for name, (new, share) in arrivals.items():
            rows = []
            for seed in range(options.draws):
                random = np.random.default_rng(seed)
                own, other = random.permutation(len(pool)), random.permutation(len(poly))
                num_foreign = round(share * num_new)
                first, second, third = own[:num_old], own[num_old:][: num_new - num_foreign], other[:num_foreign]
                rows.append(
                    judged(
                        (old[first], np.concatenate([new[second], foreign[third]])),
                        labels=(of(pool, first), of(pool, second) + of(poly, third)),
                        seed=seed,
                    )
                )
            found, effects = zip(*rows, strict=True)
            print(f"| {name} | {num_old} | {num_new} | {np.mean(found):.0%} | {np.mean(effects):.2f} |")


def judged(sides: tuple[Features, Features], *, labels: tuple[list[str], list[str]], seed: int) -> tuple[bool, float]:
    """Whether drift is found between old and new images, and the effect on all of them."""
    by_features = feature_drift(*sides, old_labels=labels[0], new_labels=labels[1], seed=seed)
    by_classes = prior_drift(Counter(labels[0]), Counter(labels[1]), seed=seed)
    reasons = drifted(by_features, by_classes, p=RULE.drift_p, effect=RULE.drift_effect)
    return bool(reasons), by_features[ALL].effect


def of(images: Cells, rows: NDArray[np.int64]) -> list[str]:
    """The classes of these images."""
    return [images[row][1] for row in rows]


def champion(images: Cells, *, folder: Path, epochs: int) -> Classifier:
    """A classifier fine-tuned on these images and packaged, as a champion is."""
    manifest = folder / "cells.csv"
    manifest.write_text("\n".join(["image,label", *(f"{path},{label}" for path, label in images)]))
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(manifest), "format": "manifest", "image_size": 80, "cache": str(folder / "cache")},
            "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
            "augment": {"flip": "both", "rotate": "quarter"},
            "train": {"epochs": epochs, "batch_size": 16, "channels_last": True},
        }
    )
    (*_, last) = fit(config)
    last.save(folder / "checkpoint")
    package(config, folder=folder / "package", checkpoint=folder / "checkpoint")
    return load_package(folder / "package")


def features(
    classifier: Classifier, images: Cells, *, change: Callable[[Image.Image], Image.Image] = lambda image: image
) -> Features:
    """Features N×F of images, changed first."""
    encoded = []
    for path, _ in images:
        file = io.BytesIO()
        with Image.open(path) as image:
            change(image).save(file, "png")
        encoded.append(file.getvalue())
    return classifier.features(encoded)


def cells(kind: str) -> Cells:
    """The solar cells of a kind of module."""
    found = read_elpv("", DataConfig(format="elpv"))
    return [(Path(one.file), str(one.label)) for one in found.samples if one.domain == kind]


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--trained", type=int, default=400, help="images that the classifier is trained on")
    parser.add_argument("--epochs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
