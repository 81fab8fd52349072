"""What a trial needs to go on, written whole or not at all."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from blake3 import blake3
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from trainable.json_text import restorable, restored, to_json
from trainable.model.network import Network

WEIGHTS, AVERAGE, OPTIMIZER = "weights.safetensors", "average.safetensors", "optimizer.safetensors"
STATE = "state.json"


class BrokenCheckpointError(Exception):
    """A checkpoint folder that is missing, cut short or of another trial."""


@dataclass(frozen=True)
class Counters:
    """Where a trial stands: the finished epoch, the judged metric of every epoch so far, the gradient scaler."""

    epoch: int
    history: dict[int, float]
    scaler: dict[str, Any]


def save_checkpoint(
    folder: Path,
    *,
    network: Network,
    moved: Collection[str],
    average: AveragedModel | None,
    optimizer: Optimizer,
    counters: Counters,
    results: dict[str, Any],
) -> None:
    """Write the ``moved`` parameters, all buffers, the running average, the optimizer and the counters into ``folder``.

    The folder appears under its name when everything is written; one already there is replaced. It reaches the disk beside
    what is done next: should the machine stop before, the digests in the state tell. ``results`` is kept as ``results`` there
    for readers. Raises OSError where the disk is full, leaving nothing behind.
    """
    contents = {
        WEIGHTS: save_tensors(_moving_tensors(network, moved)),
        OPTIMIZER: save_tensors(_optimizer_tensors(network, optimizer)),
    }
    if average is not None:
        contents[AVERAGE] = save_tensors(_moving_tensors(average.module, moved))
    state = {
        "averaged": 0 if average is None else int(average.n_averaged),
        "epoch": counters.epoch,
        "history": counters.history,
        "scaler": counters.scaler,
        "results": results,
        "bytes": {name: len(content) for name, content in contents.items()},
        "digests": {name: _digest(content) for name, content in contents.items()},
    }
    contents[STATE] = to_json(restorable(state)).encode()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        written = [(temporary / name).open("rb") for name in contents]
        _put_in_place(temporary, folder)
        threading.Thread(target=_settle, args=(written,)).start()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(
    folder: Path,
    *,
    network: Network,
    moved: Callable[[int], Collection[str]],
    average: AveragedModel | None,
    optimizer: Optimizer,
) -> Counters:
    """Put a checkpoint back; ``moved`` gives the parameters trained up to an epoch. Raises BrokenCheckpointError."""
    state = read_state(folder)
    names = moved(state["epoch"])
    _load_tensors(folder / WEIGHTS, network, names, state=state)
    if average is not None:
        _load_tensors(folder / AVERAGE, average.module, names, state=state)
        average.n_averaged.fill_(state["averaged"])
    _restore_optimizer(network, optimizer, _read_tensors(folder / OPTIMIZER, state=state))
    history = {int(epoch): value for epoch, value in state["history"].items()}
    return Counters(state["epoch"], history, state["scaler"])


def load_scored(folder: Path, *, network: Network, moved: Callable[[int], Collection[str]]) -> None:
    """Put into a network the weights that a checkpoint's scores are of: the running average where one had begun."""
    state = read_state(folder)
    name = AVERAGE if state.get("averaged") else WEIGHTS
    _load_tensors(folder / name, network, moved(state["epoch"]), state=state)


def _read_tensors(path: Path, *, state: Mapping[str, Any]) -> dict[str, Tensor]:
    return dict(load_tensors(_read_content(path, state=state)))


def _read_content(path: Path, *, state: Mapping[str, Any]) -> bytes:
    content = path.read_bytes()
    if "digests" in state and _digest(content) != state["digests"][path.name]:  # an older one has none
        raise BrokenCheckpointError(f"{path} is not what was written")
    return content


def _load_tensors(path: Path, network: nn.Module, names: Collection[str], *, state: Mapping[str, Any]) -> None:
    tensors = _read_tensors(path, state=state)
    expected = _moving_tensors(network, names)
    if tensors.keys() != expected.keys() or any(tensors[n].shape != expected[n].shape for n in tensors):
        raise BrokenCheckpointError(f"{path.parent} holds the weights of another configuration")
    network.load_state_dict(tensors, strict=False)


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON state of a whole checkpoint: epoch, history, results; raises BrokenCheckpointError."""
    try:
        state: dict[str, Any] = restored(json.loads((folder / STATE).read_text()))
        sizes = {name: (folder / name).stat().st_size for name in state["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpointError(f"{folder} is no whole checkpoint ({error})") from error
    if sizes != state["bytes"]:
        raise BrokenCheckpointError(f"{folder} is cut short")
    return state


def check_whole(folder: Path) -> None:
    """Raise BrokenCheckpointError where a checkpoint is not what was written, its tensors included."""
    state = read_state(folder)
    for name in state["bytes"]:
        _read_content(folder / name, state=state)


def checkpoint_bytes(
    network: Network, *, moved: Collection[str], average: AveragedModel | None, optimizer: Optimizer
) -> int:
    """Size of the tensors that a checkpoint would hold now."""
    weights = [*_moving_tensors(network, moved).values()] * (1 if average is None else 2)
    return sum(tensor.nbytes for tensor in [*weights, *_optimizer_tensors(network, optimizer).values()])


def _moving_tensors(network: nn.Module, moved: Collection[str]) -> dict[str, Tensor]:
    """What differs from the pretrained weights: parameters that have trained, and buffers."""
    parameters = {name: parameter for name, parameter in network.named_parameters() if name in moved}
    persistent = network.state_dict()
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in persistent}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in (parameters | buffers).items()}


def _optimizer_tensors(network: Network, optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of each parameter, ``name|entry``, and the step count that LAMB keeps for a whole group, ``|index``."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    tensors = {
        f"{names[id(parameter)]}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }
    groups = enumerate(optimizer.param_groups)
    return tensors | {f"|{index}": torch.as_tensor(group["step"]) for index, group in groups if "step" in group}


def _restore_optimizer(network: Network, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(network.named_parameters())
    for key, tensor in tensors.items():
        name, _, entry = key.partition("|")
        if not name:
            optimizer.param_groups[int(entry)]["step"] = tensor
            continue
        parameter = parameters[name]
        # Adam keeps its step count on the CPU, torch's rule for optimizers that are not capturable; what has the parameter's
        # shape gets its memory layout, which torch's grouped updates need to be fast; Muon keeps a flag.
        if entry == "step" or tensor.shape != parameter.shape:
            value = bool(tensor) if tensor.dtype == torch.bool else tensor
        else:
            value = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        optimizer.state[parameter][entry] = value


def _settle(files: list[BinaryIO]) -> None:
    """Wait until files are on the disk."""
    for file in files:
        with file, suppress(OSError):  # a disk that fails is met by the next to write or read there
            os.fsync(file.fileno())


def _digest(content: bytes) -> str:
    return str(blake3(content).hexdigest(length=16))


def _put_in_place(temporary: Path, folder: Path) -> None:
    if folder.exists():
        old = temporary.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)
