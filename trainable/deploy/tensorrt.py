"""A network as a TensorRT engine for the GPU of this machine."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainable.deploy import onnx
from trainable.deploy.deployed import INPUT, OUTPUTS, Deployed
from trainable.deploy.variant import BATCH, Logits, Predict
from trainable.errors import UserError
from trainable.libraries import library

WANTED = "--to tensorrt"
LARGEST_BATCH = 256


def require() -> None:
    """UserError where a library or the GPU is missing."""
    if not torch.cuda.is_available():
        raise UserError(f"{WANTED} needs a CUDA GPU, the one that the engine is for")
    onnx.require()
    _library()


def write(deployed: Deployed, *, path: Path, description: dict[str, Any]) -> None:
    """Build the engine from the network's ONNX file, in float32 without TF32, for 1 to 256 images; tuned for 32."""
    tensorrt = _library()
    builder = tensorrt.Builder(logger := _logger(tensorrt))
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.write(deployed, path=file, description=description)
        parsed = parser.parse(file.read_bytes())
    if not parsed:
        raise UserError(f"{WANTED}: TensorRT cannot read this network ({parser.get_error(0)})")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shape = (len(deployed.spec.mean), deployed.spec.size, deployed.spec.size)
    profile.set_shape(INPUT, (1, *shape), (BATCH, *shape), (LARGEST_BATCH, *shape))
    config.add_optimization_profile(profile)
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{WANTED}: TensorRT built no engine of this network; its log says why")
    path.write_bytes(bytes(engine))


def open_file(path: Path) -> Predict:
    """The engine on the GPU; both copies, to it and back, are part of a call."""
    tensorrt = _library()
    engine = tensorrt.Runtime(_logger(tensorrt)).deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context()
    classes = engine.get_tensor_shape(OUTPUTS[0])[1]

    def predict(images: Tensor) -> Logits:
        inputs = images.cuda().contiguous()
        outputs = {name: torch.empty(len(inputs), classes, device="cuda") for name in OUTPUTS}
        context.set_input_shape(INPUT, tuple(inputs.shape))
        for name, tensor in {INPUT: inputs, **outputs}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        logits: Logits = outputs[OUTPUTS[0]].cpu().numpy()
        return logits

    return predict


def _library() -> Any:
    return library("tensorrt", extra="tensorrt", wanted=WANTED)


def _logger(tensorrt: Any) -> Any:
    return tensorrt.Logger(tensorrt.Logger.ERROR)
