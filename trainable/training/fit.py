"""The story of one trial, told an epoch at a time."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from trainable.atomic import write_beside
from trainable.config.trial import TrialConfig
from trainable.model.network import Network
from trainable.model.norms import target_statistics
from trainable.statistics.scores import Evaluation
from trainable.training.checkpoint import checkpoint_bytes, load_scored, read_state
from trainable.training.device import peak_memory_bytes
from trainable.training.evaluate import Predicted
from trainable.training.trainer import DivergedError, Epoch, Run, start_run

__all__ = [
    "DivergedError",
    "Epoch",
    "Measured",
    "export_weights",
    "fit",
    "measure_epoch",
    "network_state",
    "predict_checkpoint",
    "score_checkpoint",
]


def fit(config: TrialConfig, *, resume_from: Path | None = None) -> Generator[Epoch, None, str]:
    """Train as configured and yield every epoch; to stop, ask for no more.

    The generator returns why training ended. Resuming from the checkpoint of any epoch gives the rest of the unbroken
    run, bit for bit on a CPU. Raises UserError for data or weights that cannot be used, DivergedError when the loss is
    no longer finite.
    """
    run = start_run(config)
    if resume_from is None:
        run.begin()
    else:
        run.restore(resume_from)
    while (ended := run.ended()) is None:
        yield run.one_epoch()
    return ended


def score_checkpoint(config: TrialConfig, *, checkpoint: Path, split: str) -> Evaluation:
    """Scores on ``split`` of the network that a checkpoint of this configuration holds."""
    return _opened(config, checkpoint=checkpoint).evaluate(split)


def predict_checkpoint(config: TrialConfig, *, checkpoint: Path, split: str) -> Predicted:
    """What that network makes of ``split``."""
    return _opened(config, checkpoint=checkpoint).predict(split)


def _opened(config: TrialConfig, *, checkpoint: Path) -> Run:
    run = start_run(config)
    run.epoch = read_state(checkpoint)["epoch"]
    load_scored(checkpoint, network=run.network, moved=run.moved)
    return run


def export_weights(config: TrialConfig, *, checkpoint: Path, path: Path) -> None:
    """Write the whole network of a checkpoint as one safetensors file, which ``model.weights`` takes to go on from."""
    run = start_run(config)
    load_scored(checkpoint, network=run.network, moved=run.moved)
    with write_beside(path) as file:
        file.write(save(network_state(run.network)))


def network_state(network: Network) -> dict[str, Tensor]:
    """What a network needs to be used, by name: nothing that was beside it in training, and the target's statistics."""
    with target_statistics(network):  # what was adapted is for the target
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    return {name: state[name] for name in state if not name.startswith("adapter.") and ".target_" not in name}


@dataclass(frozen=True)
class Measured:
    """What an epoch takes: ``seconds`` extrapolated from some updates, bytes of a checkpoint and of memory."""

    seconds: float
    checkpoint_bytes: int
    peak_memory_bytes: int


def measure_epoch(config: TrialConfig, *, updates: int = 3) -> Measured:
    """Time some updates and as many evaluation batches, after one of each to warm up; nothing is kept."""
    run = start_run(config)
    run.epoch = 1 + (config.data.early_epochs if config.data.early_size else 0)
    run.enter_phase()
    training = _seconds_each(run.losses(), count=updates)
    evaluation = _seconds_each(run.logits("val"), count=updates)
    size = run.batch_size
    seconds = training * run.updates_per_epoch
    seconds += evaluation * math.ceil(run.num_measured / size)
    moved = run.moved(config.train.epochs)
    size = checkpoint_bytes(run.network, moved=moved, average=run.average, optimizer=run.optimizer)
    return Measured(seconds, size, peak_memory_bytes(run.device))


def _seconds_each(steps: Iterator[Tensor], *, count: int) -> float:
    """Mean seconds of a step, each waited for: of ``count`` after the first, or of the first where it is alone."""
    moments = [time.perf_counter()]
    for value in steps:
        value.sum().item()
        moments.append(time.perf_counter())
        if len(moments) > count + 1:
            break
    warm = moments[1:] if len(moments) > 2 else moments
    return (warm[-1] - warm[0]) / max(1, len(warm) - 1)
