"""Real solar cells of two module types, few enough for seconds."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from trainable import TrialConfig

EACH = 14  # images of a module type and class


@pytest.fixture(scope="session")
def two_kinds(tmp_path_factory):
    """A function that writes a CSV of mono- and polycrystalline cells, the latter with the given labels or their own."""
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    wanted = [(kind, probability) for kind in ("mono", "poly") for probability in (0.0, 1.0)]
    cells = [
        (name, "functional" if probability == 0 else "defective", kind)
        for kind, probability in wanted
        for name, _, _ in [line for line in lines if line[2] == kind and float(line[1]) == probability][:EACH]
    ]
    root = tmp_path_factory.mktemp("kinds")

    def write(name, *, labels_of_poly=None):
        given = iter(labels_of_poly or [])
        with (root / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "kind"])
            for image, label, kind in cells:
                writer.writerow([str(data / image), next(given, label) if kind == "poly" else label, kind])
        return str(root / name)

    return write


@pytest.fixture
def adapting(two_kinds, cache):
    """A function that makes a small trial from mono to poly."""
    own = two_kinds("own.csv")

    def make(method, *, path=None, oracle=False, **sections):
        base = {
            "data": {
                "path": path or own,
                "domain_column": "kind",
                "target": "poly",
                "image_size": 32,
                "cache": cache,
                "oracle": oracle,
            },
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 2, "batch_size": 9},
            "augment": {"strength": "light"},
            "adapt": {"method": method},
        }
        for name, values in sections.items():
            base[name] = base.get(name, {}) | values if isinstance(values, dict) else values
        return TrialConfig.model_validate(base)

    return make
