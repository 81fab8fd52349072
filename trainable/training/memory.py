"""Trains in less memory what does not fit."""

import gc

import torch

from trainable.config.trial import TrialConfig

LEAST_BATCH = 2  # batch norm cannot train on one image
MOST_ACCUMULATED = 256  # as train.accumulate


def halved(config: TrialConfig) -> TrialConfig | None:
    """The trial with half the images a forward pass and twice the passes an update; None where that cannot be.

    The gradient of an update is that of the same images, but that batch norms in train mode see half as many at once.
    """
    train = config.train
    half, rest = divmod(train.batch_size, 2)
    if rest or half < LEAST_BATCH or 2 * train.accumulate > MOST_ACCUMULATED:
        return None
    changed = train.model_copy(update={"batch_size": half, "accumulate": 2 * train.accumulate})
    return config.model_copy(update={"train": changed})


def free_memory() -> None:
    """Give back what this process holds of a GPU's memory and no longer uses."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def limit_memory(share: float) -> None:
    """Let torch hold no more than this share of a GPU's memory in this process, where it computes on one.

    What goes beyond is an error of this process alone, which leaves those of others on the same GPU as they are.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)
