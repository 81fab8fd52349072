"""A weights file as the tensors of one network, whatever wrapped them when they were saved."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainable.errors import UserError
from trainable.terminal import plain

StateDict = dict[str, Tensor]
# Kept in the memory of each process that builds networks.
KEPT_FILES = 2
MOST_KEPT_BYTES = 2**29  # of one file
# Where checkpoints of training programs keep the weights, a running average of them first, as timm itself prefers it.
KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
)
# What torch.compile, FSDP and activation checkpointing put into names, anywhere in them.
WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
SAVE = "torch.save(model.state_dict(), 'weights.pth')"


def read_weights_file(path: Path, *, names: Collection[str], device: str = "cpu") -> StateDict:
    """The tensors of a safetensors or torch file under a model's own ``names``, on ``device``; on ``meta`` only their shapes.

    They may lie in a checkpoint beside other things, and under a prefix (``module.``, ``model.``, ``_orig_mod.``), which is
    the one that most of ``names`` are found under; what lies outside it is left out. Raises UserError for a file that is not
    there, that cannot be read without unpickling code, or that holds several such networks.
    """
    if not path.is_file():
        raise no_file(path)
    try:
        content = _content(path, device=device)
    except Exception as error:
        raise UserError(f"model.weights: {path} {_reason(error)}") from error
    state = {WRAPPERS.sub("", name): tensor for name, tensor in _tensors(content, path=path).items()}
    prefix = _prefix(state, names=names, path=path)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def no_file(path: Path) -> UserError:
    """The line about weights that are not there."""
    return UserError(f"model.weights: no file {str(path)!r}; give a file, `pretrained`, `random` or `package:NAME`")


def _content(path: Path, *, device: str) -> Any:
    return read_once(path) if device == "cpu" else _read(path, device=device)


def read_once(path: Path) -> Any:
    """What a file holds, on the CPU. It is kept for the next trial of this process: write into none of its tensors.

    Raises whatever a reader raises for a file that is not what it seems.
    """
    status = path.stat()
    if status.st_size > MOST_KEPT_BYTES:
        return _read(path, device="cpu")
    return _kept(path.resolve(), status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=KEPT_FILES)
def _kept(path: Path, _changed: int, _size: int, _inode: int) -> Any:
    return _read(path, device="cpu")


def _read(path: Path, *, device: str) -> Any:
    if path.suffix == ".safetensors":
        return {name: tensor.to(device) for name, tensor in load_file(path).items()}
    return torch.load(path, map_location=device, weights_only=True)


def _tensors(content: Any, *, path: Path) -> StateDict:
    """The innermost state dict, of a checkpoint under one of ``KEYS``."""
    while isinstance(content, Mapping):
        inner = next((key for key in KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"model.weights: {path} holds no state dict of tensors, but {plain(held)}; save it with {SAVE}")
    return tensors


def _prefix(state: StateDict, *, names: Collection[str], path: Path) -> str:
    """What the model's ``names`` begin with in the file."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for index in range(len(parts)):
            if ".".join(parts[index:]) in names:
                counts["".join(f"{part}." for part in parts[:index])] += 1
    most = max(counts.values(), default=0)
    best = sorted((prefix for prefix, count in counts.items() if count == most), key=lambda p: (len(p), p))
    if len(best) > 1 and "" not in best and most > len(names) / 2:
        raise UserError(
            f"model.weights: {path} holds {len(best)} networks, under {' and '.join(map(repr, best))}; "
            f"save the one that is meant with {SAVE}"
        )
    return best[0] if best else ""


def _reason(error: Exception) -> str:
    """Why a file could not be read, in one sentence of ours; torch's own go on for lines, with terminal codes in them."""
    text = str(error).strip()
    stranger = re.search(r"GLOBAL (\S+)", text)
    if stranger:
        return (
            f"also holds other Python objects ({plain(stranger[1])}), and only tensors are loaded, since unpickling "
            f"others runs code; save the weights alone with {SAVE}, or as safetensors"
        )
    if "TorchScript" in text:
        return f"is a TorchScript archive, which is code; save the weights alone with {SAVE}, or as safetensors"
    if "Weights only load failed" in text or "Invalid argument" in text or not text:
        return "is no readable safetensors or torch weights file, or is cut off"
    sentence = re.split(r"[.] |[.]?$|\n", text)[0]
    return f"is no readable safetensors or torch weights file ({plain(sentence)})"
