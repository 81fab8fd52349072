"""What is exported: a network that takes pixels as they are in an image file."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainable.data.input_spec import InputSpec

INPUT = "images"
SOURCE_NOTES = ("stack_trace", "nn_module_stack")  # half of a small file, with paths of the machine that wrote it
OUTPUTS = ("logits", "probabilities")


class Deployed(nn.Module):
    """N×C×S×S uint8 pixels, 0 to 255, colour as RGB, to logits and probabilities, both N×K.

    Normalisation lies inside, so that a served model cannot be fed numbers of another scale: any other type is refused.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, spec: InputSpec) -> None:
        """``network`` takes normalised images; it is not copied, and left in eval mode with nothing to train."""
        super().__init__()
        self.network = network
        self.spec = spec
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and probabilities, their softmax, in the order of the classes."""
        logits = self.network((images.float() - self.mean) / self.std)
        return logits, logits.softmax(dim=1)


def trace(deployed: Deployed) -> ExportedProgram:
    """The program of a network for any number of images from 1, without the places in source files that torch notes."""
    size = deployed.spec.size
    # Of one image, torch would fix the number.
    images = torch.zeros(2, len(deployed.spec.mean), size, size, dtype=torch.uint8)
    program = torch.export.export(deployed, (images,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}, strict=False)
    for node in program.graph.nodes:
        for key in SOURCE_NOTES:
            node.meta.pop(key, None)
    return program


def describe(spec: InputSpec, *, classes: tuple[str, ...]) -> dict[str, Any]:
    """What goes into every exported file: classes in the order of the outputs, and how an image becomes the input."""
    return {
        "classes": list(classes),
        "input": {
            "name": INPUT,
            "layout": "N×C×S×S uint8, 0 to 255, colour as RGB, not normalised",
            "channels": len(spec.mean),
            "size": spec.size,
            "resize": f"shorter side to {spec.stored_side} pixels, {spec.interpolation}, then the centre",
        },
        "outputs": list(OUTPUTS),
    }
