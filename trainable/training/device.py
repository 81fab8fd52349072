"""Where a trial computes, in what numerics, with how much memory."""

import resource
from contextlib import AbstractContextManager

import torch

from trainable.config.trial import TrainConfig, TrialConfig
from trainable.errors import UserError
from trainable.model.precision import used_amp

MATMUL = "high"  # of float32 products on a GPU: in TF32, where it has that
CUDNN = {
    "allow_tf32": True,
    # Algorithms chosen by the clock differ from one process to the next, and with them the last bits.
    "benchmark": False,
    "deterministic": False,  # a trial that is resumed on a GPU is near the unbroken one, not equal to it
}


def pick_device(config: TrialConfig) -> torch.device:
    """The device of ``train.device``, its numerics set; raises UserError where it is absent or cannot do ``train.amp``."""
    has_cuda = torch.cuda.is_available()
    if config.train.device == "cuda" and not has_cuda:
        raise UserError(
            "train.device: 'cuda' was asked for, and this machine has no usable GPU; 'cpu' or 'auto' run here"
        )
    device = torch.device("cuda" if has_cuda and config.train.device != "cpu" else "cpu")
    if device.type == "cpu" and config.train.amp == "fp16":
        raise UserError("train.amp: 'fp16' needs a GPU; on a CPU 'off', 'bf16' or 'auto'")
    _set_numerics(device)
    return device


def _set_numerics(device: torch.device) -> None:
    """Set what torch has for the whole process; on a CPU nothing, where float32 is float32."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision(MATMUL)
        for name, value in CUDNN.items():
            setattr(torch.backends.cudnn, name, value)


def numerics(device: torch.device, train: TrainConfig) -> dict[str, object]:
    """In what a trial computes, as it is now: for whoever compares two of them."""
    used: dict[str, object] = {"device": device.type, "amp": used_amp(train.amp, device)}
    used |= {"channels_last": train.channels_last, "float32_matmul": torch.get_float32_matmul_precision()}
    if device.type == "cuda":
        used |= {"device": torch.cuda.get_device_name(device)}
        used |= {f"cudnn_{name}": getattr(torch.backends.cudnn, name) for name in CUDNN}
    return used


def autocast(device: torch.device, train: TrainConfig) -> AbstractContextManager[object]:
    """The numerics of ``train.amp`` for forward passes; changes nothing where it is off."""
    amp = used_amp(train.amp, device)
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held: by torch on a GPU, by the process since its start on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gpu_bytes(device: torch.device) -> dict[str, float]:
    """The most that was held of a GPU, by this process and all others on it, and what it has; nothing on a CPU.

    It is what the driver counts now, libraries and all, with the most that torch reserved in place of what it has reserved now.
    """
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    peak = total - free - torch.cuda.memory_reserved(device) + torch.cuda.max_memory_reserved(device)
    return {"usage/gpu_bytes": float(peak), "usage/gpu_total_bytes": float(total)}
