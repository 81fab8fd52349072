"""What is measured: the names, directions and meanings of metrics."""

from typing import Literal

Direction = Literal["maximize", "minimize"]

DIRECTIONS: dict[str, Direction] = {
    "val/accuracy": "maximize",  # share of images classified right
    "val/balanced_accuracy": "maximize",  # mean recall over the classes that occur
    "val/macro_f1": "maximize",  # mean F1 over all classes
    "val/loss": "minimize",  # mean cross-entropy, nats, without smoothing or class weights
    "val/ece": "minimize",  # expected calibration error, 15 equal bins (Guo et al. 2017)
    # of the target domain, without its labels: definitions in trainable.statistics.selectors
    "target/snd": "maximize",  # soft neighbourhood density (Saito et al. 2021)
    "target/entropy": "minimize",  # mean entropy of the predictions, nats
    "target/infomax": "maximize",  # entropy of the mean prediction less the mean entropy, nats
    "target/bnm": "maximize",  # nuclear norm of the predictions, 1 at most (Cui et al. 2020)
    "target/mcc": "minimize",  # confusion of classes in the predictions (Jin et al. 2020)
    "target/iwv": "minimize",  # validation loss of the source, weighted to the target (Sugiyama et al. 2007)
    "target/dev": "minimize",  # the same with a control variate (You et al. 2019)
    # by the target's labels, where `data.oracle` allows them
    "oracle/accuracy": "maximize",
    "oracle/balanced_accuracy": "maximize",
    "oracle/macro_f1": "maximize",
}


def is_better(value: float, than: float | None, *, metric: str, by: float = 0.0) -> bool:
    """Whether ``value`` beats ``than`` in the metric's direction by more than ``by``; a first value beats nothing recorded."""
    if than is None:
        return True
    return value > than + by if DIRECTIONS[metric] == "maximize" else value < than - by


def gain(best: float, *, over: float, metric: str) -> float:
    """How much better ``best`` is than ``over``, in the metric's unit; negative is worse."""
    return best - over if DIRECTIONS[metric] == "maximize" else over - best


def epochs_to_converge(values: dict[int, float], *, metric: str, share: float = 0.95) -> int | None:
    """The first epoch that reached ``share`` of the best value; for a metric to minimise, came as near; None without values.

    Where the best value is negative, the goal is as much worse in proportion: -0.4 / 0.95 for one to maximise.
    """
    best = best_epoch(values, metric=metric)
    if best is None:
        return None
    worse_is_nearer_zero = (DIRECTIONS[metric] == "maximize") == (values[best] >= 0)
    goal = values[best] * (share if worse_is_nearer_zero else 1 / share)
    return next(epoch for epoch in sorted(values) if not is_better(goal, values[epoch], metric=metric))


def epochs_waited(values: dict[int, float], *, metric: str, min_delta: float) -> int:
    """Epochs since the last that was better than all before it by more than ``min_delta``."""
    best: float | None = None
    since = 0
    for epoch in sorted(values):
        if is_better(values[epoch], best, metric=metric, by=min_delta):
            best, since = values[epoch], epoch
    return max(values) - since if values else 0


def best_epoch(values: dict[int, float], *, metric: str) -> int | None:
    """The epoch of the best value; the earliest of equals; None without values."""
    best: int | None = None
    for epoch in sorted(values):
        if is_better(values[epoch], None if best is None else values[best], metric=metric):
            best = epoch
    return best
