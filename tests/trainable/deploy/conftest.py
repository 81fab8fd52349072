"""A small network that knows a little about real solar cells."""

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from trainable import TrialConfig
from trainable.loader.batches import evaluation_batches, normalise
from trainable.model.network import Network, create_network
from trainable.training.fit import begin
from trainable.training.inputs import open_images

IMAGES_OF_CLASS = 100


@dataclass(frozen=True)
class Trained:
    """A network, its configuration and validation images N×C×S×S uint8."""

    network: Network
    config: TrialConfig
    pixels: torch.Tensor
    spec: object

    def logits(self, pixels):
        """As the training's own evaluation computes them."""
        with torch.no_grad():
            return self.network.eval()(normalise(pixels, self.spec)).numpy()


@pytest.fixture(scope="session")
def labelled_cells(tmp_path_factory):
    """Solar cells that all experts called functional or all defective, in two folders."""
    root = tmp_path_factory.mktemp("labelled_cells")
    found = find_spec("elpv_dataset")
    data = Path(found.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    for label, probability in (("functional", 0.0), ("defective", 1.0)):
        (root / label).mkdir()
        for name in [row[0] for row in rows if float(row[1]) == probability][:IMAGES_OF_CLASS]:
            shutil.copy(data / name, root / label)
    return root


@pytest.fixture(scope="session")
def configured(labelled_cells, tmp_path_factory):
    """Configurations of trials on those cells."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def configure(name="resnet10t", **sections):
        data = {"path": str(labelled_cells), "image_size": 32, "cache": cache, "val_share": 0.3, "test_share": 0.1}
        base = {
            "data": data,
            "model": {"name": name, "weights": "random"},
            "train": {"epochs": 10, "batch_size": 20, "device": "cpu"},
            "augment": {"flip": "both"},
        }
        return TrialConfig.model_validate(base | sections)

    return configure


def with_images(network, config):
    images = open_images(config, size=config.data.image_size)
    pixels = torch.cat(
        [batch.images for batch in evaluation_batches(images.pack, "val", spec=images.spec, batch_size=32)]
    )
    return Trained(network.eval(), config, pixels, images.spec)


@pytest.fixture(scope="session")
def trained(configured):
    """A ResNet after some epochs."""
    trainer = begin(configured())
    while trainer.state.ended() is None:
        trainer.one_epoch()
    return with_images(trainer.state.network, trainer.config)


@pytest.fixture
def untrained(configured):
    """A network of any architecture whose head and statistics are not at their starts, where much would cancel out."""

    def make(name, **sections):
        config = configured(name, **sections)
        spec = open_images(config, size=config.data.image_size).spec
        network = create_network(config, spec=spec, num_classes=2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if key.endswith(("running_mean", "head.1.weight", "shift")):
                    tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        return with_images(network, config)

    return make
