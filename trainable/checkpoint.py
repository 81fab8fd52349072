"""What a trial needs to go on, written whole or not at all."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim import Optimizer

from trainable.model.network import Network

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


class BrokenCheckpointError(Exception):
    """A checkpoint folder that is missing, cut short or of another trial."""


@dataclass(frozen=True)
class Counters:
    """Where a trial stands: the finished epoch, the judged metric of every epoch so far, the gradient scaler."""

    epoch: int
    history: dict[int, float]
    scaler: dict[str, Any]


def save_checkpoint(
    folder: Path, *, network: Network, optimizer: Optimizer, counters: Counters, results: dict[str, Any]
) -> None:
    """Write the trainable weights, all buffers, the optimizer and the counters into ``folder``.

    The folder appears under its name when everything is on the disk; one already there is replaced. ``results`` is
    kept as ``results`` in the state for readers. Raises OSError where the disk is full, leaving nothing behind.
    """
    contents = {
        WEIGHTS: save_tensors(_moving_tensors(network)),
        OPTIMIZER: save_tensors(_optimizer_tensors(network, optimizer)),
    }
    state = {
        "epoch": counters.epoch,
        "history": counters.history,
        "scaler": counters.scaler,
        "results": results,
        "bytes": {name: len(content) for name, content in contents.items()},
    }
    contents[STATE] = json.dumps(state).encode()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            _write(temporary / name, content)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(folder: Path, *, network: Network, optimizer: Optimizer | None) -> Counters:
    """Put a checkpoint back into a network and, if given, its optimizer; raises BrokenCheckpointError."""
    state = read_state(folder)
    weights = load_tensors((folder / WEIGHTS).read_bytes())
    expected = _moving_tensors(network)
    if weights.keys() != expected.keys() or any(weights[n].shape != expected[n].shape for n in weights):
        raise BrokenCheckpointError(f"{folder} holds the weights of another configuration")
    network.load_state_dict(weights, strict=False)
    if optimizer is not None:
        _restore_optimizer(network, optimizer, load_tensors((folder / OPTIMIZER).read_bytes()))
    history = {int(epoch): value for epoch, value in state["history"].items()}
    return Counters(state["epoch"], history, state["scaler"])


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON state of a whole checkpoint: epoch, history, results; raises BrokenCheckpointError."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        sizes = {name: (folder / name).stat().st_size for name in state["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpointError(f"{folder} is no whole checkpoint ({error})") from error
    if sizes != state["bytes"]:
        raise BrokenCheckpointError(f"{folder} is cut short")
    return state


def checkpoint_bytes(network: Network, optimizer: Optimizer) -> int:
    """Size of the tensors that a checkpoint would hold now."""
    tensors = [*_moving_tensors(network).values(), *_optimizer_tensors(network, optimizer).values()]
    return sum(tensor.nbytes for tensor in tensors)


def _moving_tensors(network: Network) -> dict[str, Tensor]:
    """What differs from the pretrained weights: parameters that train, and buffers."""
    trainable = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    persistent = network.state_dict()
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in persistent}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in (trainable | buffers).items()}


def _optimizer_tensors(network: Network, optimizer: Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def _restore_optimizer(network: Network, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(network.named_parameters())
    for key, tensor in tensors.items():
        name, _, entry = key.partition("|")
        parameter = parameters[name]
        # Adam keeps its step count on the CPU, torch's rule for optimizers that are not capturable; everything else has
        # the parameter's shape and gets its memory layout, which torch's grouped updates need to be fast.
        value = tensor if entry == "step" else torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        optimizer.state[parameter][entry] = value


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, folder: Path) -> None:
    if folder.exists():
        old = temporary.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)
