"""What a backbone makes of each position of the image, before it is pooled."""

from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from trainable.model.layers import as_map


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


def shows_tokens(backbone: Any) -> bool:
    """Whether a timm model shows the tokens of each block, those of the class included, as its last norm makes them."""
    options = signature(backbone.forward_intermediates).parameters if hasattr(backbone, "forward_intermediates") else {}
    return {"norm", "return_prefix_tokens"} <= set(options)


def described(layout: Layout) -> dict[str, Any]:
    """A layout as keywords."""
    return asdict(layout)
