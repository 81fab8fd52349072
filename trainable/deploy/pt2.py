"""A network as a torch.export program, which torch alone runs."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainable.deploy.deployed import Deployed, trace
from trainable.deploy.variant import Logits, Predict

DESCRIPTION = "description.json"  # name of the extra file


def require() -> None:
    """Needs nothing but torch."""


def write(deployed: Deployed, *, path: Path, description: dict[str, Any]) -> None:
    """Write the program with a batch axis of any length; the description is its extra file."""
    program = trace(deployed)
    program.example_inputs = None  # would be saved with it
    torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description, ensure_ascii=False)})


def open_file(path: Path) -> Predict:
    """The program on the CPU, on as many threads as torch has."""
    module = torch.export.load(path).module()

    def predict(images: Tensor) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(images)[0].numpy()
        return logits

    return predict
