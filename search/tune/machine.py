"""What a machine has, told on the driver without loading what computes where that is possible."""

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
    return facts | {"gpus": ", ".join(_gpus()) or "none"} | {name: version(name) for name in packages}


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
