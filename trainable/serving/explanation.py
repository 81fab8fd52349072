"""Where in an image a packaged classifier sees a class: a heat map over what it looks at."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainable.errors import UserError
from trainable.libraries import library
from trainable.serving.classifier import Classifier

HOT = (255.0, 48.0, 0.0)  # red, green, blue of what counts most
STRONGEST = 0.65  # share of that colour where the map is 1


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was seen in an image: ``pixels`` C×S×S uint8 as the network gets them, the ``heat`` S×S, 0 to 1, of a ``label``."""

    label: str
    pixels: NDArray[np.uint8]
    heat: NDArray[np.float32]

    def picture(self) -> Image.Image:
        """The image with its heat over it, in colour."""
        shown = np.broadcast_to(self.pixels[:1] if len(self.pixels) != 3 else self.pixels, (3, *self.pixels.shape[1:]))
        share = STRONGEST * self.heat[..., None]
        mixed = (1 - share) * shown.transpose(1, 2, 0) + share * np.array(HOT, dtype=np.float32)
        return Image.fromarray(mixed.round().astype(np.uint8))


def check_library() -> Any:
    """Load what explains. Raises UserError where it is missing."""
    return library("captum.attr", extra="explain", wanted="--explain")


def explain(classifier: Classifier, image: bytes, *, label: str) -> Explanation:
    """What speaks for a class in an encoded image: gradient times activation of the last map, summed over channels and not
    below 0 (Draelos and Carin 2020), which is Grad-CAM (Selvaraju et al. 2017) where a head looks at its mean alone.

    The views of a finish are left out. Raises UserError where captum is missing or the network has no map, and what decoding
    raises.
    """
    captum = check_library()
    network = cast(Any, classifier.network)
    pixels = classifier.pixels(image)
    given = classifier.normalised(torch.from_numpy(pixels)[None].to(classifier.device))
    views, network.views = network.views, ()
    try:
        name, channels = _last_map(network.backbone, given, run=network)
        method = captum.LayerGradientXActivation(network, network.backbone.get_submodule(name))
        found = method.attribute(given.clone(), target=classifier.classes.index(label))
    finally:
        network.views = views
    heat = _over_image(found.detach().float(), channels=channels, backbone=network.backbone, size=pixels.shape[-1])
    return Explanation(label=label, pixels=pixels, heat=heat)


def _last_map(backbone: nn.Module, images: Tensor, *, run: nn.Module) -> tuple[str, int]:
    """Name and channels of the last of timm's intermediates that a pass goes through and that is more than a vector."""
    ran: list[str] = []
    channels = {info["module"]: int(info["num_chs"]) for info in getattr(cast(Any, backbone), "feature_info", ())}
    modules = dict(backbone.named_modules())

    def note(name: str) -> Any:
        return lambda _module, _given, output: ran.append(name) if getattr(output, "ndim", 0) > 2 else None

    hooks = [modules[name].register_forward_hook(note(name)) for name in channels if name in modules]
    try:
        with torch.inference_mode():
            run(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise UserError("--explain: the network has no map of the image that timm knows of")
    return ran[-1], channels[ran[-1]]


def _over_image(found: Tensor, *, channels: int, backbone: nn.Module, size: int) -> NDArray[np.float32]:
    """Values 1×C×H×W, 1×H×W×C or 1×L×C as a map S×S from 0 to 1; 0 where nothing speaks for the class."""
    if found.ndim == 4:
        heat = found.sum(dim=1 if found.shape[1] == channels else 3)
    else:
        tokens = found[:, int(getattr(cast(Any, backbone), "num_prefix_tokens", 0)) :].sum(dim=2)
        side = math.isqrt(tokens.shape[1])
        heat = tokens[:, : side * side].reshape(1, side, side)
    grown = interpolate(heat.clamp(min=0)[:, None], size=(size, size), mode="bilinear", align_corners=False)[0, 0]
    highest = float(grown.max())
    scaled: NDArray[np.float32] = (grown / highest if highest > 0 else grown).cpu().numpy()
    return scaled
