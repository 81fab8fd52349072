"""One form of a network as a file: what it is, how large, how good, how fast."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.statistics.scores import score

Logits = NDArray[np.float32]
Predict = Callable[[Tensor], Logits]  # N×C×S×S uint8 → N×K
BATCH = 32
WARM_UP_CALLS = 3
FEWEST_CALLS, MOST_CALLS, SECONDS_OF_CALLS = 5, 20, 1.0  # timed, of each batch size


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of the table.

    ``format`` is `torch` for the network itself, else one that can be asked for; ``pruned`` the share of the parameters that was
    removed; ``file`` the name in the export's folder, None for the network in torch; ``size_mb`` the file's size in 10⁶ bytes,
    in torch that of all tensors. Accuracies are shares of the evaluated images; ``agreement`` is the share on which the class
    is that of the unpruned network in torch. ``max_difference`` is the largest distance of a logit from that of the torch
    network it was made of, in units of the largest logit where that is above 1. Latencies are medians in milliseconds of a
    batch of 1 and of 32 on one thread of the CPU (of TensorRT: on the GPU, both copies included). ``note`` says what was
    decided.
    """

    format: str
    precision: Literal["fp32", "int8"]
    pruned: float
    file: str | None
    parameters: int
    size_mb: float
    accuracy: float
    balanced_accuracy: float
    agreement: float
    max_difference: float
    latency_ms_1: float
    latency_ms_32: float
    note: str = ""

    @property
    def name(self) -> str:
        """What it is in words."""
        pruned = f", {100 * self.pruned:.0f} % pruned" if self.pruned else ""
        return f"{self.format} {self.precision}{pruned}"

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Examples:
    """The images that variants are judged by: batches N×C×S×S uint8, all labels, the classes."""

    batches: Sequence[Tensor]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def logits(self, predict: Predict) -> Logits:
        """Of all the images."""
        return np.concatenate([predict(batch) for batch in self.batches])

    def scores(self, logits: Logits) -> dict[str, float]:
        """Accuracy and balanced accuracy."""
        probabilities = torch.from_numpy(logits).double().softmax(dim=1).numpy()
        metrics = score(probabilities, labels=self.labels, classes=self.classes).metrics
        return {name: metrics[name] for name in ("accuracy", "balanced_accuracy")}

    def latencies(self, predict: Predict) -> dict[str, float]:
        """Median milliseconds of a batch of 1 and of 32."""
        images = torch.cat([*self.batches])
        many = images[torch.arange(BATCH) % len(images)]
        return {"latency_ms_1": _milliseconds(predict, many[:1]), "latency_ms_32": _milliseconds(predict, many)}


def difference(logits: Logits, reference: Logits) -> float:
    """Largest distance of two logits, in units of the largest of ``reference`` where that is above 1."""
    return float(np.abs(logits - reference).max() / max(1.0, float(np.abs(reference).max())))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _milliseconds(predict: Predict, images: Tensor) -> float:
    for _ in range(WARM_UP_CALLS):
        predict(images)
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS or (sum(seconds) < SECONDS_OF_CALLS and len(seconds) < MOST_CALLS):
        started = time.perf_counter()
        predict(images)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)
