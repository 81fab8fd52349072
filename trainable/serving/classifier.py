"""A packaged image classifier: encoded images to probabilities.

A copy of this file goes into every packaged model, beside its weights, so that a model runs where this project is not
installed and as it was packaged: nothing of the project may be imported here.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
DECODING = ("channels", "interpolation", "max_pixels", "bit_depth", "background")  # as decode.py names them
Decode = Callable[..., NDArray[np.uint8]]


class Classifier:
    """The network of a package in eval mode, with everything that lies between an encoded image and its input.

    ``decode`` is that of the package's decode.py; ``classes`` are in the order of the probabilities; ``device`` is a GPU
    where there is one.
    """

    def __init__(self, folder: Path, *, decode: Decode, device: str | None = None) -> None:
        self.description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        self.classes: tuple[str, ...] = tuple(self.description["classes"])
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = _network(self.description, state=load_file(folder / WEIGHTS)).to(self.device)
        self._decode = decode

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
            with torch.inference_mode():
                found = layers(self.normalised(pixels.to(self.device)))
            yield found.float().cpu()


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


def _network(description: dict[str, Any], *, state: dict[str, Tensor]) -> _Shifted:
    backbone = cast(nn.Module, timm.create_model(description["architecture"], **description["options"]))
    backbone.reset_classifier(0)  # type: ignore[operator]
    if description["input_size"] is not None:
        backbone.set_input_size(img_size=description["input_size"])  # type: ignore[operator]
    if description.get("until") is not None:
        _cut_behind(backbone, index=description["until"])
    _show_pooled(backbone, description.get("pool"), is_cut=description.get("until") is not None)
    views = description.get("finish", {}).get("views", [])
    network = _Shifted(backbone, _head(state), pool=_pool(state), num_classes=len(description["classes"]), views=views)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _cut_behind(backbone: Any, *, index: int) -> None:
    """End a timm model behind its intermediate ``index``; from then on it gives that one's mean over the image, N×F."""
    stops = "stop_early" in inspect.signature(backbone.forward_intermediates).parameters
    of_tokens = hasattr(backbone, "num_prefix_tokens")  # as a map their shape would be asked of the images themselves
    options = {"indices": [index], "output_fmt": "NLC" if of_tokens else "NCHW", "intermediates_only": True}
    options |= {"stop_early": True} if stops else {}

    def last_map(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.forward_intermediates(images, **options)[-1]
        return maps

    def forward(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.last_map(images)
        return maps.mean(dim=1 if of_tokens else (2, 3))

    backbone.prune_intermediate_layers([index], prune_norm=True, prune_head=True)
    backbone.feature_info = backbone.feature_info[: index + 1]
    kind = type(backbone)
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "last_map": last_map, "is_cut": True})


def _show_pooled(backbone: Any, described: Any, *, is_cut: bool) -> None:
    """Let a timm model give what is pooled: intermediates by number, or what is named by its kind."""
    if isinstance(described, list):
        _pool_stages(backbone, indices=described, is_cut=is_cut)
    elif described is not None and described["kind"] == "positions":
        _show_positions(backbone, axes=described["axes"], num_prefix=described["num_prefix"], is_cut=is_cut)
    elif described is not None:
        _show_token_mean(backbone, num_prefix=described["num_prefix"])


def _pool_stages(backbone: Any, *, indices: list[int], is_cut: bool) -> None:
    """Let a timm model give, beside its own features, mean and standard deviation over the image of these intermediates' maps."""
    of_tokens = hasattr(backbone, "num_prefix_tokens")
    options = {"indices": indices, "output_fmt": "NLC" if of_tokens else "NCHW", "intermediates_only": is_cut}

    def forward(self: Any, images: Tensor) -> Tensor:
        outputs = self.forward_intermediates(images, **options)
        features, stages = ([], outputs) if is_cut else ([self.forward_head(outputs[0])], outputs[1])
        for maps in stages:
            values, axes = maps.float(), 1 if of_tokens else (2, 3)
            features += [values.mean(dim=axes), (values.var(dim=axes, correction=0) + 1e-6).sqrt()]
        return torch.cat(features, dim=1)

    kind = type(backbone)
    methods = {"forward": forward, "shows_stages": True, "pools_otherwise": True}
    backbone.__class__ = type(kind.__name__, (kind,), methods)


def _as_map(pooled: Tensor, *, axes: str, num_prefix: int) -> Tensor:
    """A map that has N×C everywhere, tokens of the class included."""
    if axes == "NCHW":
        return pooled[:, :, None, None]
    return pooled[:, None, None] if axes == "NHWC" else pooled[:, None].expand(-1, num_prefix + 1, -1)


def _show_positions(backbone: Any, *, axes: str, num_prefix: int, is_cut: bool) -> None:
    """Let a timm model give its last map, N×L×C; ``finish`` makes features N×F of what is pooled of it, N×C."""

    def forward(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.last_map(images) if is_cut else self.forward_features(images)
        if axes == "NCHW":
            return maps.flatten(2).transpose(1, 2)
        return maps.flatten(1, 2) if axes == "NHWC" else maps[:, num_prefix:]

    def finish(self: Any, pooled: Tensor) -> Tensor:
        features = pooled if is_cut else self.forward_head(_as_map(pooled, axes=axes, num_prefix=num_prefix))
        return cast(Tensor, features)

    kind = type(backbone)
    methods = {"forward": forward, "finish": finish, "shows_positions": True, "pools_otherwise": True}
    backbone.__class__ = type(kind.__name__, (kind,), methods)


def _show_token_mean(backbone: Any, *, num_prefix: int) -> None:
    """Let a timm model give features of the class token, and beside them of the mean of the patches' tokens."""

    def forward(self: Any, images: Tensor) -> Tensor:
        tokens = self.forward_features(images)
        both = (tokens[:, 0], tokens[:, num_prefix:].mean(dim=1))
        features = [self.forward_head(_as_map(each, axes="NLC", num_prefix=num_prefix)) for each in both]
        return torch.cat(features, dim=1)

    kind = type(backbone)
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "pools_otherwise": True})


def _pool(state: dict[str, Tensor]) -> nn.Module | None:
    """The pool that these weights are of, if they have one."""
    if "pool.query" in state:
        return _AttentivePool(len(state["pool.query"]))
    return _GeneralisedMean() if "pool.exponent" in state else None


class _GeneralisedMean(nn.Module):
    """N×L×C to N×C: (mean of x^p)^(1/p)."""

    LEAST = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, positions: Tensor) -> Tensor:
        values, exponent = positions.float().clamp(min=self.LEAST), self.exponent.clamp(min=1)
        largest = values.amax(dim=1, keepdim=True).detach()  # a large power of what is above 1 is no number
        return (values / largest).pow(exponent).mean(dim=1).pow(1 / exponent) * largest[:, 0]


class _AttentivePool(nn.Module):
    """N×L×C to N×C: their mean by softmax(x·q/√C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, positions: Tensor) -> Tensor:
        values = positions.float()
        scores = (values * self.query).sum(dim=2, keepdim=True) / len(self.query) ** 0.5
        pooled: Tensor = (scores.softmax(dim=1) * values).sum(dim=1)
        return pooled


class _CosineLayer(nn.Module):
    """N×F to N×K: a scale times the cosine of features and class weights."""

    LEAST_NORM = 1e-6  # of features, below which their direction says nothing and its gradient would be too large

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, width) / width**0.5)
        self.scale = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, features: Tensor) -> Tensor:
        directions = normalize(features.float(), dim=1, eps=self.LEAST_NORM)
        return self.scale * linear(directions, normalize(self.weight, dim=1))


def _head(state: dict[str, Tensor]) -> nn.Sequential:
    """The head that these weights are of: its last layer alone, or a hidden one before it; dropout rests."""
    if "head.1.scale" in state:
        num_classes, width = state["head.1.weight"].shape
        return nn.Sequential(nn.Identity(), _CosineLayer(width, num_classes))
    if "head.3.weight" not in state:
        return nn.Sequential(nn.Identity(), _linear(state["head.1.weight"]))
    return nn.Sequential(_linear(state["head.0.weight"]), nn.ReLU(), nn.Identity(), _linear(state["head.3.weight"]))


def _linear(weight: Tensor) -> nn.Linear:
    return nn.Linear(weight.shape[1], weight.shape[0])
