"""Where a trial computes, in what numerics, with how much memory."""

import resource
from contextlib import AbstractContextManager

import torch

from trainable.config.trial import TrainConfig, TrialConfig
from trainable.errors import UserError


def pick_device(config: TrialConfig) -> torch.device:
    """The device of ``train.device``; raises UserError where it is absent or cannot do ``train.amp``."""
    has_cuda = torch.cuda.is_available()
    if config.train.device == "cuda" and not has_cuda:
        raise UserError(
            "train.device: 'cuda' was asked for, and this machine has no usable GPU; 'cpu' or 'auto' run here"
        )
    device = torch.device("cuda" if has_cuda and config.train.device != "cpu" else "cpu")
    if device.type == "cpu" and config.train.amp == "fp16":
        raise UserError("train.amp: 'fp16' needs a GPU; on a CPU 'off' or 'bf16'")
    return device


def autocast(device: torch.device, train: TrainConfig) -> AbstractContextManager[object]:
    """The numerics of ``train.amp`` for forward passes; changes nothing where it is off."""
    dtype = torch.float16 if train.amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=train.amp != "off")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held: by torch on a GPU, by the process since its start on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
