"""What a backbone makes of each position of the image, before it is pooled."""

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a timm model's last map lies: its ``axes``, NCHW, NHWC or NLC, and its tokens that are no position of the image."""

    axes: str
    num_prefix: int


def layout_of(backbone: nn.Module, *, images: Tensor) -> Layout | None:
    """How the last map of a timm model lies; None where it shows none, or goes by more than this map.

    It is the layout in which the model's last layers, given a map that is the same everywhere, make features as wide as its own.
    """
    num_prefix = int(getattr(backbone, "num_prefix_tokens", int(has_class_token(backbone))))
    try:
        with torch.no_grad():
            width = backbone(images).shape[1]
            maps = backbone.forward_features(images)  # type: ignore[operator]
            candidates = {3: ("NLC",), 4: ("NCHW", "NHWC")}[maps.ndim]
    except (AttributeError, KeyError):  # it has no such method, or what that gives is no map
        return None
    if maps.ndim == 3 and maps.shape[1] <= num_prefix:
        return None
    return next(
        (
            Layout(axes=axes, num_prefix=num_prefix if axes == "NLC" else 0)
            for axes in candidates
            if _is_laid_out(backbone, maps, axes=axes, num_prefix=num_prefix, width=width)
        ),
        None,
    )


def _is_laid_out(backbone: Any, maps: Tensor, *, axes: str, num_prefix: int, width: int) -> bool:
    pooled = maps.mean(dim=tuple(index for index, axis in enumerate(axes) if axis in "HWL"))
    try:
        with torch.no_grad():
            features = backbone.forward_head(as_map(pooled, axes=axes, num_prefix=num_prefix))
    except (AttributeError, RuntimeError, AssertionError):
        return False
    return isinstance(features, Tensor) and features.shape == (len(maps), width)


def has_class_token(backbone: nn.Module) -> bool:
    """Whether a timm model has a token for the class."""
    return getattr(backbone, "cls_token", None) is not None


def as_map(pooled: Tensor, *, axes: str, num_prefix: int) -> Tensor:
    """A map that has N×C everywhere, tokens of the class included.

    The same lines stand in ``trainable.serving.classifier``, which may import nothing, as do those of the functions below; a
    test holds both equal.
    """
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


def described(layout: Layout) -> dict[str, Any]:
    """A layout as keywords."""
    return asdict(layout)
