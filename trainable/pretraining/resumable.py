"""Keeps the state of a long training that is no trial, so that a killed one goes on where it was."""

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from trainable.atomic import write_beside
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError

BACKBONE = "backbone.safetensors"
KEPT = 2  # states that stay: the newest, and one before it should the disk have damaged it
PLACES = {"path", "cache", "workers"}  # of the data; the images themselves are in its fingerprint


@dataclass(frozen=True)
class Standing:
    """How far a training came: finished steps, and the metrics of every report until then."""

    step: int
    history: tuple[dict[str, float], ...]


def identity(config: BaseModel, *, fingerprint: str, but: Collection[str] = ()) -> dict[str, Any]:
    """What a state is a function of: the images, and all settings that have an effect on it; ``but`` are more without."""
    without: dict[str, Any] = {"device": True, "data": PLACES, **dict.fromkeys(but, True)}
    described: dict[str, Any] = json.loads(config.model_dump_json(exclude=without))
    return {**described, "images": fingerprint}


def save_standing(
    folder: Path, standing: Standing, *, module: nn.Module, optimizer: Optimizer, of: Mapping[str, Any]
) -> None:
    """Write all parameters, buffers and the optimizer into one file of ``folder``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"step": standing.step, "history": standing.history, "of": of}
    with write_beside(folder / f"state_{standing.step:07d}.safetensors") as file:
        file.write(save_tensors(_tensors(module, optimizer), metadata={"about": json.dumps(about)}))
    for old in _states(folder)[KEPT:]:
        old.unlink()


def restore_standing(folder: Path, *, module: nn.Module, optimizer: Optimizer, of: Mapping[str, Any]) -> Standing:
    """Put the newest whole state of ``folder`` back; step 0 where there is none.

    Raises UserError where it is that of other settings or other images.
    """
    for path in _states(folder):
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError):
            continue
        _check_same(about["of"], of, folder=folder)
        _restore(tensors, module=module, optimizer=optimizer)
        return Standing(about["step"], tuple(about["history"]))
    return Standing(0, ())


def write_backbone(folder: Path, backbone: nn.Module, *, spec: InputSpec, of: Mapping[str, Any]) -> Path:
    """``folder/backbone.safetensors``, which ``model.weights`` loads; its header says what it was trained by.

    Position embeddings are brought back to the architecture's own image size, at which weights are loaded.
    """
    model = copy.deepcopy(backbone).cpu()
    native = int(model.pretrained_cfg["input_size"][-1])  # type: ignore[index]
    if hasattr(model, "set_input_size") and native != spec.size:
        model.set_input_size(img_size=(native, native))  # type: ignore[operator]
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with write_beside(folder / BACKBONE) as file:
        file.write(save_tensors(state, metadata={"of": json.dumps(of)}))
    return folder / BACKBONE


def _states(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("state_*.safetensors"), reverse=True)


def _tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    moving = {
        f"optimizer|{names[id(parameter)]}|{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in (dict(_own_tensors(module)) | moving).items()}


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, those that a state dict leaves out too: lightly's queue of keys is one."""
    yield from module.named_parameters()
    yield from module.named_buffers()


@torch.no_grad()
def _restore(tensors: dict[str, Tensor], *, module: nn.Module, optimizer: Optimizer) -> None:
    module_tensors = dict(_own_tensors(module))
    parameters = dict(module.named_parameters())
    for name, tensor in module_tensors.items():
        tensor.copy_(tensors[name])
    for name in tensors.keys() - module_tensors.keys():
        _, parameter, key = name.split("|")
        on_device = key != "step"  # Adam counts on the CPU
        value = tensors[name].to(parameters[parameter].device) if on_device else tensors[name]
        optimizer.state[parameters[parameter]][key] = value


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    old, new = dict(_flat(then)), dict(_flat(now))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{folder} holds another training: {name} is {old.get(name)!r} there and {new.get(name)!r} here; "
                "give another folder"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
