"""A network as an ONNX file, which ONNX Runtime runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainable.deploy.deployed import INPUT, OUTPUTS, Deployed, trace
from trainable.deploy.variant import Logits, Predict
from trainable.libraries import library

DESCRIPTION = "description"  # key of the file's metadata


def require() -> None:
    """UserError where a library is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library(name, extra="onnx", wanted="--to onnx")


def write(deployed: Deployed, *, path: Path, description: dict[str, Any]) -> None:
    """Write the network with a batch axis of any length and the weights inside; the description is in its metadata."""
    program = torch.onnx.export(
        trace(deployed), input_names=[INPUT], output_names=list(OUTPUTS), dynamo=True, verbose=False
    )
    assert program is not None
    program.model.metadata_props[DESCRIPTION] = json.dumps(description, ensure_ascii=False)
    program.save(path, external_data=False)


def open_file(path: Path) -> Predict:
    """The file in ONNX Runtime, on one thread of the CPU."""
    onnxruntime = library("onnxruntime", extra="onnx", wanted="--to onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Logits:
        logits: Logits = np.asarray(session.run([OUTPUTS[0]], {INPUT: images.numpy()})[0])
        return logits

    return predict
