"""What a machine has, told on the driver without loading what computes where that is possible."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from trainable.cpus import usable_cpus

# What the drivers of GPUs make: NVIDIA's, that of WSL, AMD's. Where none is there, torch is not loaded to ask it.
DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def environment() -> dict[str, str]:
    """What the search ran on: versions of what decides results, the platform, the GPUs of this machine."""
    packages = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "scikit-learn", "numpy")
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(usable_cpus())}
    gpus = ", ".join(_gpus())
    facts["gpus"] = f"{gpus}, shared by MPS" if gpus and is_mps_running() else gpus or "none"
    return facts | {name: version(name) for name in packages}


def is_mps_running() -> bool:
    """Whether NVIDIA's Multi-Process Service runs here: processes on one GPU then compute at once, not in turn, unasked."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


def local_resources() -> dict[str, float]:
    """CPUs and GPUs of this machine that may be used."""
    return {"cpu": float(usable_cpus()), "gpu": float(len(_gpus()))}


def may_have_gpu() -> bool:
    """Whether this machine may have a GPU; False where it surely has none that torch could use."""
    return sys.platform != "linux" or any(Path(device).exists() for device in DEVICES)


def _gpus() -> list[str]:
    """The names of the GPUs that torch can use."""
    if not may_have_gpu():
        return []
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
