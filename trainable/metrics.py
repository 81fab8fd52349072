"""What is measured: the names, directions and meanings of metrics."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

Direction = Literal["maximize", "minimize"]

Split = Literal["val", "target", "oracle"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that tells how good a network is.

    ``drives`` are the splits on which it may decide (of the validation images, of the target without its labels, of the target by
    its labels, where ``data.oracle`` allows them), under the full name ``split/name``. ``compares`` says whether two networks can
    be compared by it on the same test images.
    """

    direction: Direction
    meaning: str
    drives: tuple[Split, ...] = ()
    compares: bool = False


# By predictions and labels; trainable.statistics.scores computes them.
SCORES = {
    "accuracy": Metric(
        direction="maximize", meaning="share of images classified right", drives=("val", "oracle"), compares=True
    ),
    "balanced_accuracy": Metric(
        direction="maximize", meaning="mean recall over the classes that occur", drives=("val", "oracle"), compares=True
    ),
    "macro_f1": Metric(
        direction="maximize", meaning="mean F1 over all classes", drives=("val", "oracle"), compares=True
    ),
    "loss": Metric(
        direction="minimize", meaning="mean cross-entropy, nats, without smoothing or class weights", drives=("val",)
    ),
    "ece": Metric(
        direction="minimize",
        meaning="expected calibration error, 15 equal bins (Guo et al. 2017): 0 to 1",
        drives=("val",),
    ),
}

# Of a target domain without its labels; trainable.statistics.selectors computes them.
UNLABELLED = {
    "snd": Metric(
        direction="maximize", meaning="soft neighbourhood density (Saito et al. 2021), nats", drives=("target",)
    ),
    "entropy": Metric(
        direction="minimize", meaning="mean entropy of a prediction: 0 to log K, nats", drives=("target",)
    ),
    "infomax": Metric(
        direction="maximize",
        meaning="entropy of the mean prediction less the mean entropy: 0 to log K, nats",
        drives=("target",),
    ),
    "bnm": Metric(
        direction="maximize",
        meaning="nuclear norm of the predictions (Cui et al. 2020): above 0, at most 1",
        drives=("target",),
    ),
    "mcc": Metric(
        direction="minimize", meaning="class confusion of the predictions (Jin et al. 2020): 0 to 1", drives=("target",)
    ),
    "iwv": Metric(
        direction="minimize",
        meaning="importance-weighted cross-entropy on the source (Sugiyama et al. 2007): from 0, nats",
        drives=("target",),
    ),
    "dev": Metric(
        direction="minimize",
        meaning="importance-weighted cross-entropy with a control variate (You et al. 2019): nats, not bounded",
        drives=("target",),
    ),
    # Features that say nothing are the same everywhere, so these two tell domains, not networks.
    "mmd": Metric(direction="minimize", meaning="squared discrepancy of the domains' features: 0 to 2"),
    "a_distance": Metric(
        direction="minimize",
        meaning="how well a linear classifier tells the domains apart (Ben-David et al. 2007): 0 to 2",
    ),
}

# Of a network before it is trained, by full name; trainable.training.footprint measures them.
MEASURES = {
    "model/parameters": Metric(direction="minimize", meaning="parameters of backbone, pool and head"),
    "usage/latency_ms": Metric(
        direction="minimize",
        meaning="milliseconds that the network takes for one image, at the median, on the worker, beside what else is at work",
    ),
}

# The metrics by which a search may be driven, by full name.
DIRECTIONS: dict[str, Direction] = {
    f"{split}/{name}": metric.direction
    for split in get_args(Split)
    for name, metric in (SCORES | UNLABELLED).items()
    if split in metric.drives
}

if TYPE_CHECKING:
    MetricName = str
    ComparedMetric = str
else:
    MetricName = Literal[tuple(DIRECTIONS)]
    ComparedMetric = Literal[tuple(name for name, metric in SCORES.items() if metric.compares)]


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
