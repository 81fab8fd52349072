"""What networks here have beside timm's own layers: earlier ends, pools, heads, adapters, prompts.

A copy of this file goes into every packaged model, which is served where this project is not installed: it imports torch alone.
"""

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


def cut_behind(backbone: Any, *, index: int) -> None:
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


def show_pooled(backbone: Any, described: Any, *, is_cut: bool) -> None:
    """Let a timm model give what is pooled: intermediates by number, or what is named by its kind; None is its own features."""
    if isinstance(described, list):
        pool_stages(backbone, indices=described, is_cut=is_cut)
    elif described is not None and described["kind"] == "positions":
        show_positions(backbone, axes=described["axes"], num_prefix=described["num_prefix"], is_cut=is_cut)
    elif described is not None and described["kind"] == "blocks":
        show_blocks(backbone, num_blocks=described["num_blocks"], num_prefix=described["num_prefix"])
    elif described is not None:
        show_token_mean(backbone, num_prefix=described["num_prefix"])


def pool_of(state: Mapping[str, Tensor]) -> nn.Module | None:
    """The pool that the weights of a network are of, if they have one."""
    if "pool.query" in state:
        return AttentivePool(len(state["pool.query"]))
    return GeneralisedMean() if "pool.exponent" in state else None


def head_of(state: Mapping[str, Tensor]) -> nn.Sequential:
    """The head that the weights of a network are of: its last layer alone, or a hidden one before it; dropout rests."""
    if "head.1.scale" in state:
        num_classes, width = state["head.1.weight"].shape
        kind = TextLayer if "head.1.projection" in state else CosineLayer
        return nn.Sequential(nn.Identity(), kind(width, num_classes))
    if "head.3.weight" not in state:
        return nn.Sequential(nn.Identity(), _linear(state["head.1.weight"]))
    return nn.Sequential(_linear(state["head.0.weight"]), nn.ReLU(), nn.Identity(), _linear(state["head.3.weight"]))


def put_back(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the adapters and prompts into a timm model that the weights of a network, ``backbone.…`` by name, are of."""
    for name, tensor in state.items():
        place, _, last = name.removeprefix("backbone.").rpartition(".")
        if name.endswith(".bottleneck_adapter.down.weight"):
            block = backbone.get_submodule(place.removesuffix(".bottleneck_adapter.down"))
            add_adapter(block, BottleneckAdapter(tensor.shape[1], width=tensor.shape[0], of_maps=tensor.ndim == 4))
        elif last == "visual_prompts":
            add_prompts(backbone.get_submodule(place), nn.Parameter(tensor.clone()))


def _linear(weight: Tensor) -> nn.Linear:
    return nn.Linear(weight.shape[1], weight.shape[0])


def pool_stages(backbone: Any, *, indices: list[int], is_cut: bool) -> None:
    """Let a timm model give, beside its own features, mean and standard deviation over the image of these intermediates' maps.

    One that is cut has no features of its own but the mean of its last map, which is among these.
    """
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


def as_map(pooled: Tensor, *, axes: str, num_prefix: int) -> Tensor:
    """A map that has N×C everywhere, tokens of the class included."""
    if axes == "NCHW":
        return pooled[:, :, None, None]
    return pooled[:, None, None] if axes == "NHWC" else pooled[:, None].expand(-1, num_prefix + 1, -1)


def show_positions(backbone: Any, *, axes: str, num_prefix: int, is_cut: bool) -> None:
    """Let a timm model give its last map, N×L×C for L positions; ``finish`` makes features N×F of them once they are pooled, N×C.

    The features are what the model's own last layers make of them; of one that is cut there are none.
    """

    def forward(self: Any, images: Tensor) -> Tensor:
        maps: Tensor = self.last_map(images) if is_cut else self.forward_features(images)
        if axes == "NCHW":
            return maps.flatten(2).transpose(1, 2)
        return maps.flatten(1, 2) if axes == "NHWC" else maps[:, num_prefix:]

    def finish(self: Any, pooled: Tensor) -> Tensor:
        features = pooled if is_cut else self.forward_head(as_map(pooled, axes=axes, num_prefix=num_prefix))
        return cast(Tensor, features)

    kind = type(backbone)
    methods = {"forward": forward, "finish": finish, "shows_positions": True, "pools_otherwise": True}
    backbone.__class__ = type(kind.__name__, (kind,), methods)


def show_token_mean(backbone: Any, *, num_prefix: int) -> None:
    """Let a timm model give what its last layers make of the class token, and beside it of the mean of the patches' tokens."""

    def forward(self: Any, images: Tensor) -> Tensor:
        tokens = self.forward_features(images)
        both = (tokens[:, 0], tokens[:, num_prefix:].mean(dim=1))
        features = [self.forward_head(as_map(each, axes="NLC", num_prefix=num_prefix)) for each in both]
        return torch.cat(features, dim=1)

    kind = type(backbone)
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "pools_otherwise": True})


def show_blocks(backbone: Any, *, num_blocks: int, num_prefix: int) -> None:
    """Let a timm model give features of the class tokens behind its last blocks, and of the mean of the last patches' tokens.

    Those of earlier blocks go through the last norms as those of the last one do (Oquab et al. 2023, linear evaluation).
    """
    options = {"output_fmt": "NLC", "intermediates_only": True, "norm": True, "return_prefix_tokens": True}

    def forward(self: Any, images: Tensor) -> Tensor:
        blocks = self.forward_intermediates(images, indices=num_blocks, **options)
        parts = [prefix[:, 0] for _, prefix in blocks] + [blocks[-1][0].mean(dim=1)]
        features = [self.forward_head(as_map(each, axes="NLC", num_prefix=num_prefix)) for each in parts]
        return torch.cat(features, dim=1)

    kind = type(backbone)
    backbone.__class__ = type(kind.__name__, (kind,), {"forward": forward, "pools_otherwise": True})


class GeneralisedMean(nn.Module):
    """N×L×C positions to N×C: (mean of x^p)^(1/p), p learned from 3 on (GeM, Radenović et al. 2018).

    With p = 1 it is the mean, the larger p the nearer the maximum; a lower p counts as 1, a value below ``LEAST`` as that.
    """

    LEAST = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, positions: Tensor) -> Tensor:
        """Pooled features N×C, float32."""
        values, exponent = positions.float().clamp(min=self.LEAST), self.exponent.clamp(min=1)
        largest = values.amax(dim=1, keepdim=True).detach()  # a large power of what is above 1 is no number
        return (values / largest).pow(exponent).mean(dim=1).pow(1 / exponent) * largest[:, 0]


class AttentivePool(nn.Module):
    """N×L×C positions to N×C: their mean by softmax(x·q/√C), with one learned query q that begins as 0, where it is the mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, positions: Tensor) -> Tensor:
        """Pooled features N×C, float32."""
        values = positions.float()
        scores = (values * self.query).sum(dim=2, keepdim=True) / len(self.query) ** 0.5
        pooled: Tensor = (scores.softmax(dim=1) * values).sum(dim=1)
        return pooled


class CosineLayer(nn.Module):
    """N×F to N×K: a learned scale, 10 at first, times the cosine of features and class weights (Gidaris & Komodakis 2018)."""

    LEAST_NORM = 1e-6  # of features, below which their direction says nothing and its gradient would be too large

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, width) / width**0.5)
        self.scale = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, features: Tensor) -> Tensor:
        """Logits N×K, from -scale to scale."""
        directions = normalize(features.float(), dim=1, eps=self.LEAST_NORM)
        return self.scale * linear(directions, normalize(self.weight, dim=1))


class TextLayer(CosineLayer):
    """N×F to N×K: a scale times the cosine of projected features and those of class names (CLIP, Radford et al. 2021).

    ``projection``, F×F, takes features into the space of images and text; rows that this space does not have are 0, and
    stay so, since the class weights are 0 there, too.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes)
        self.projection = nn.Parameter(torch.eye(width))

    def forward(self, features: Tensor) -> Tensor:
        """Logits N×K, from -scale to scale."""
        return super().forward(linear(features.float(), self.projection))


class BottleneckAdapter(nn.Module):
    """x + up(relu(down(x))) over the channels of N×L×C or N×H×W×C, or, ``of_maps``, of N×C×H×W (Houlsby et al. 2019).

    ``up`` begins as 0, so that it begins as no change (AdaptFormer, Chen et al. 2022).
    """

    def __init__(self, channels: int, *, width: int, of_maps: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Conv2d(channels, width, kernel_size=1) if of_maps else nn.Linear(channels, width)
        self.up = nn.Conv2d(width, channels, kernel_size=1) if of_maps else nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        """What is given, and what is learnt beside it, of the same shape."""
        changes: Tensor = self.up(self.down(self.dropout(inputs)).relu())
        return inputs + changes


def add_adapter(block: nn.Module, adapter: BottleneckAdapter) -> None:
    """Let what a block gives go through an adapter, its ``bottleneck_adapter`` (behind all else, Steitz & Roth 2024)."""
    kind = type(block)

    def forward(self: Any, *inputs: Any, **options: Any) -> Tensor:
        return cast(Tensor, self.bottleneck_adapter(kind.forward(self, *inputs, **options)))

    block.bottleneck_adapter = adapter
    block.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def add_prompts(block: nn.Module, prompts: nn.Parameter) -> None:
    """Show a transformer's block P×C learned tokens, its ``visual_prompts``, behind the N×L×C that it is given.

    What it makes of them is dropped, as that of deep prompts is, which every block has anew (Jia et al. 2022).
    """
    kind = type(block)

    def forward(self: Any, tokens: Tensor, *inputs: Any, **options: Any) -> Tensor:
        prompts = self.visual_prompts.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        outputs: Tensor = kind.forward(self, torch.cat([tokens, prompts], dim=1), *inputs, **options)
        return outputs[:, : tokens.shape[1]]

    block.visual_prompts = prompts
    block.__class__ = type(kind.__name__, (kind,), {"forward": forward})
