"""What a network takes, measured before it is trained."""

import statistics
import time
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.metrics import MEASURES
from trainable.model.light_adapters import as_served
from trainable.model.network import Network, create_network
from trainable.training.device import autocast, pick_device
from trainable.training.inputs import open_images

WARM_UPS, PASSES = 3, 15


def measure_network(config: TrialConfig, *, names: Collection[str]) -> dict[str, float]:
    """Measure these of ``metrics.MEASURES`` of a trial's network, as it is where it trains but for what is not served.

    Raises UserError for data, weights or a device that cannot be used.
    """
    device = pick_device(config)
    images = open_images(config, size=config.data.image_size)
    plain, num_classes = as_served(config), len(images.pack.classes)
    network = create_network(plain, spec=images.spec, num_classes=num_classes).to(device).eval()
    image = torch.zeros(1, config.data.channels, images.spec.size, images.spec.size, device=device)
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    measures: dict[str, Callable[[], float]] = {
        "model/parameters": lambda: _num_parameters(network),
        "usage/latency_ms": lambda: _latency_ms(network, image, config=config),
    }
    assert measures.keys() == MEASURES.keys()
    return {name: measures[name]() for name in names}


def _num_parameters(network: Network) -> float:
    """Of all but what learns beside the network to align domains, which is not served."""
    return float(sum(p.numel() for name, p in network.named_parameters() if not name.startswith("adapter.")))


def _latency_ms(network: Network, image: Tensor, *, config: TrialConfig) -> float:
    """The median of some forward passes of one image, in the numerics that it trains with."""
    seconds = []
    with torch.inference_mode(), autocast(image.device, config.train):
        for _ in range(WARM_UPS + PASSES):
            began = time.perf_counter()
            network(image)
            if image.device.type == "cuda":
                torch.cuda.synchronize(image.device)
            seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[WARM_UPS:])
