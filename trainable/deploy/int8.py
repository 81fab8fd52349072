"""A network in 8 bits, in the way that suits its layers."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from trainable.deploy import onnx, pt2
from trainable.deploy.deployed import INPUT, Deployed
from trainable.libraries import library

QUANTIZATION = "onnxruntime.quantization"
KEPT_IN_FLOAT = {"LayerNormalization"}  # one weight a channel, which cannot have a scale for each


@dataclass(frozen=True)
class Scheme:
    """How a network goes to 8 bits, in a file of which format, and why so."""

    format: Literal["onnx", "pt2"]
    reason: str


def choose(network: nn.Module) -> Scheme:
    """Static where most weights are convolutions', else of the weights alone, whose activations have outliers that 8 bits cut."""
    sizes = {
        kind: sum(module.weight.numel() for module in network.modules() if isinstance(module, kind))
        for kind in (nn.Conv2d, nn.Linear)
    }
    share = sizes[nn.Conv2d] / sum(sizes.values())
    reason = f"{100 * share:.0f} % of the weights are in convolutions"
    if share >= 0.5:
        return Scheme("onnx", f"int8 weights and activations, calibrated on training images: {reason}")
    return Scheme("pt2", f"int8 weights of linear layers, float activations: {reason}")


def require(scheme: Scheme) -> None:
    """UserError where a library is missing."""
    if scheme.format == "onnx":
        onnx.require()
    else:
        library("torchao", extra="torchao", wanted="--int8 of a network of linear layers")


def write(
    deployed: Deployed,
    *,
    scheme: Scheme,
    path: Path,
    plain: Path,
    calibration: Sequence[Tensor],
    description: dict[str, Any],
) -> None:
    """Write the network in 8 bits; ``calibration`` are batches N×C×S×S uint8 of training images.

    A static scheme starts from the network's ONNX file at ``plain``, which is written where it is not there yet.
    """
    if scheme.format == "onnx":
        if not plain.exists():
            onnx.write(deployed, path=plain, description=description)
        _quantize_file(plain, path=path, calibration=calibration)
    else:
        pt2.write(_weights_in_8_bits(deployed), path=path, description=description)


def _quantize_file(plain: Path, *, path: Path, calibration: Sequence[Tensor]) -> None:
    """Weights int8 for each channel, activations uint8, between quantizing and dequantizing nodes.

    Unsigned activations are what CPUs with VNNI are fast with; on x86 without it, sums of pairs can saturate.
    """
    quantization = library(QUANTIZATION, extra="onnx", wanted="--int8")
    shapes = library(f"{QUANTIZATION}.shape_inference", extra="onnx", wanted="--int8")
    registry = library(f"{QUANTIZATION}.registry", extra="onnx", wanted="--int8")
    prepared = path.with_name(f"{path.name}.prepared")
    shapes.quant_pre_process(plain, prepared)
    quantization.quantize_static(
        prepared,
        path,
        _reader(calibration, quantization=quantization),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        op_types_to_quantize=sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry} - KEPT_IN_FLOAT),
    )
    prepared.unlink()


def _reader(batches: Sequence[Tensor], *, quantization: Any) -> Any:
    """The batches as ONNX Runtime asks for them."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.batches, None)
            return None if images is None else {INPUT: images.numpy()}

    return Reader()


def _weights_in_8_bits(deployed: Deployed) -> Deployed:
    """A copy whose linear layers hold int8 and a scale a row, as plain tensors, so that running it needs no torchao."""
    torchao = library("torchao.quantization", extra="torchao", wanted="--int8")
    utils = library("torchao.utils", extra="torchao", wanted="--int8")
    smaller = copy.deepcopy(deployed)
    torchao.quantize_(smaller, torchao.Int8WeightOnlyConfig(set_inductor_config=False))
    utils.unwrap_tensor_subclass(smaller)
    return smaller
