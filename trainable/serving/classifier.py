"""A packaged image classifier: encoded images to probabilities.

A copy of this file goes into every packaged model, beside its weights, so that a model runs where this project is not
installed and as it was packaged: nothing of the project may be imported here. Beside it lie ``decode.py``, and ``layers.py``
with what networks have beside timm's own layers; who loads it hands both in.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
DECODING = ("channels", "interpolation", "max_pixels", "bit_depth", "background")  # as decode.py names them
FEW = 8  # images: fewer are answered on the cores that other work leaves
Decode = Callable[..., NDArray[np.uint8]]


class Classifier:
    """The network of a package in eval mode, with everything that lies between an encoded image and its input.

    ``decode`` is that of the package's decode.py, ``layers`` its layers.py as a module; ``classes`` are in the order of the
    probabilities; ``device`` is a GPU where there is one.
    """

    def __init__(self, folder: Path, *, decode: Decode, layers: ModuleType, device: str | None = None) -> None:
        self.description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        self.classes: tuple[str, ...] = tuple(self.description["classes"])
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = _network(self.description, state=load_file(folder / WEIGHTS), layers=layers).to(self.device)
        self._decode = decode
        self._threads = torch.get_num_threads()

    def probabilities(self, images: Sequence[bytes], *, batch_size: int = 32) -> NDArray[np.float64]:
        """N×K of N encoded images; what ``decode`` raises for one that is none passes through."""
        found = self._outputs(images, layers=self.network, batch_size=batch_size)
        return np.concatenate(
            [np.zeros((0, len(self.classes))), *(logits.double().softmax(dim=1).numpy() for logits in found)]
        )

    def plausible(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_] | None:
        """N×K, which classes are likely enough to be the right one; None where the package does not say from when on."""
        unsure = self.description.get("unsure")
        return None if unsure is None else probabilities >= unsure["least_probability"]

    def features(self, images: Sequence[bytes], *, batch_size: int = 32) -> NDArray[np.float32]:
        """N×F of N encoded images: the pooled output of the backbone, which is what the head is given."""
        found = self._outputs(images, layers=self.network.features, batch_size=batch_size)
        width = next(self.network.head.parameters()).shape[1]
        return np.concatenate([np.zeros((0, width), np.float32), *(features.numpy() for features in found)])

    def pixels(self, image: bytes) -> NDArray[np.uint8]:
        """The C×S×S centre of an encoded image whose shorter side is brought to ``stored_side``."""
        expected = self.description["input"]
        settings = {name: expected[name] for name in DECODING if name in expected}
        stored = self._decode(image, side=expected["stored_side"], **settings)
        size = expected["size"]
        top, left = ((length - size) // 2 for length in stored.shape[:2])
        return np.ascontiguousarray(stored[top : top + size, left : left + size].transpose(2, 0, 1))

    def normalised(self, pixels: Tensor) -> Tensor:
        """N×C×S×S uint8 as the network takes them."""
        mean, std = (
            255 * torch.tensor(self.description["input"][name], device=pixels.device).view(-1, 1, 1)
            for name in ("mean", "std")
        )
        return pixels.float().sub_(mean).div_(std)

    def _outputs(
        self, images: Sequence[bytes], *, layers: Callable[[Tensor], Tensor], batch_size: int
    ) -> Iterator[Tensor]:
        """What ``layers`` make of each batch of encoded images, as float32 on the CPU."""
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.stack([self.pixels(one) for one in images[start : start + batch_size]]))
            with torch.inference_mode(), threads_for(len(pixels), most=self._threads):
                found = layers(self.normalised(pixels.to(self.device)))
            yield found.float().cpu()


@contextmanager
def threads_for(images: int, *, most: int) -> Iterator[None]:
    """Inside, torch computes on as many threads as suit a batch of so many images.

    Threads wait for each other many times in an image, so one that finds its core taken holds up the others: on a busy machine
    two threads may need many times as long for an image as one. A batch of few images therefore gets as many as the last minute's
    load leaves cores, at least one and at most ``most``, which a larger batch has in any case, and whatever comes after.
    """
    if images >= FEW or not hasattr(os, "getloadavg"):
        yield
        return
    torch.set_num_threads(idle_cores(os.getloadavg()[0], cores=os.cpu_count() or 1, most=most))
    try:
        yield
    finally:
        torch.set_num_threads(most)


def idle_cores(load: float, *, cores: int, most: int) -> int:
    """How many of ``cores`` a machine of that load leaves, at least 1 and at most ``most``."""
    return max(1, min(most, round(cores - load)))


class _Shifted(nn.Module):
    """Backbone, pool, head and the shift that is taken off the logits, under the names of the training's network.

    The logits are the mean over the images as they are and in all of ``views``: quarter turns after flips over axes.
    """

    shift: Tensor

    def __init__(
        self, backbone: nn.Module, head: nn.Module, *, pool: nn.Module | None, num_classes: int, views: Sequence[Any]
    ) -> None:
        super().__init__()
        self.views = views
        self.backbone = backbone
        self.head = head
        self.pool = pool
        self.register_buffer("shift", torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        turned = [torch.rot90(images.flip(axes), turns, dims=(-2, -1)) for turns, axes in self.views]
        logits = [self.head(self.features(shown)) - self.shift for shown in (images, *turned)]
        return torch.stack(logits).mean(dim=0) if turned else logits[0]

    def features(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.backbone(images)
        return outputs if self.pool is None else cast(Any, self.backbone).finish(self.pool(outputs))


def _network(description: dict[str, Any], *, state: dict[str, Tensor], layers: ModuleType) -> _Shifted:
    backbone = cast(nn.Module, timm.create_model(description["architecture"], **description["options"]))
    backbone.reset_classifier(0)  # type: ignore[operator]
    if description["input_size"] is not None:
        backbone.set_input_size(img_size=description["input_size"])  # type: ignore[operator]
    if description.get("until") is not None:
        layers.cut_behind(backbone, index=description["until"])
    layers.show_pooled(backbone, description.get("pool"), is_cut=description.get("until") is not None)
    views = description.get("finish", {}).get("views", [])
    layers.put_back(backbone, state)
    head, pool = layers.head_of(state), layers.pool_of(state)
    network = _Shifted(backbone, head, pool=pool, num_classes=len(description["classes"]), views=views)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
