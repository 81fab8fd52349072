"""What is done to a trained network before it is handed over, each step kept where it helps on validation images.

A step is judged by the cross-entropy, of classes weighed alike where the trial's metric is balanced accuracy: a metric that
counts some hundred images is too coarse for it, and the trial was chosen for its luck in it. Weights of classes alone are
judged by the metric, which they are there for, and must raise it by more than its standard error. The classes' shares are
left alone for a metric of which it is not known how they should count, where a class has too few validation images to say, and
for a network that adapts to a target: validation images, of the source, tell how sure it may be of such as they are at best.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from trainable.loader.symmetries import Symmetry, symmetries
from trainable.statistics.arrays import Double, Labels
from trainable.statistics.calibration import (
    NUM_FOLDS,
    Calibration,
    choose_held_out,
    cross_entropy,
    fit_calibration,
    held_out,
)
from trainable.statistics.class_weights import METRICS as WEIGHED
from trainable.statistics.class_weights import fit_class_weights
from trainable.statistics.comparison import compare
from trainable.statistics.scores import score
from trainable.training.interpolation import SHARES, interpolate, interpolated, starting_state
from trainable.training.losses import prior_shift
from trainable.training.measure import Measurer
from trainable.training.setup import Setup

StepName = Literal["interpolation", "views", "calibration", "class_weights"]
GOES_BY_SHARES = ("val/balanced_accuracy", "val/accuracy", "val/loss")  # metrics for which it is known how shares count
ONE_DEVIATION = 0.8413  # a one-sided confidence: weights of classes must raise the metric by one standard error
LEAST = float(np.finfo(np.float64).tiny)  # of a probability whose logarithm is taken


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A step: scores of validation images that it was not fitted to, without it and with it, and whether it stays.

    It is judged ``by`` one of these, by name.
    """

    step: StepName
    by: str
    kept: bool
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What a network is given: its weights are ``interpolation`` times the trained ones, the rest those that it began with;
    its logits are averaged over the image and its ``views``, then calibrated; then the probability of each class is multiplied
    by its entry of ``class_weights``, K or none.
    """

    interpolation: float = 1.0
    views: Sequence[Symmetry] = ()
    calibration: Calibration = field(default_factory=Calibration)
    class_weights: Sequence[float] = ()
    tried: Sequence[Tried] = field(default=(), compare=False)

    def apply(self, setup: Setup) -> None:
        """Make the trained network of ``setup`` the finished one."""
        network = setup.network
        if self.interpolation < 1:
            interpolate(network, starting_state(setup), share=self.interpolation)
        network.views = tuple(self.views)
        network.shift += self.calibration.tau * log_shares_of(setup).to(network.shift)
        network.cool(self.calibration.temperature)
        if self.class_weights:
            network.shift -= torch.tensor(self.class_weights).log().to(network.shift)

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


def read_finish(document: Mapping[str, Any]) -> Finish:
    """A finish from its dict, without what was tried."""
    views = tuple((turns, tuple(axes)) for turns, axes in document.get("views", ()))
    calibration = Calibration(**document.get("calibration", {}))
    return Finish(
        interpolation=document.get("interpolation", 1.0),
        views=views,
        calibration=calibration,
        class_weights=tuple(document.get("class_weights", ())),
    )


def log_shares_of(setup: Setup) -> torch.Tensor:
    """The logarithms of the classes' shares of the training images, K."""
    return prior_shift(setup.counts, tau=1.0)


def find_finish(setup: Setup, *, measurer: Measurer, steps: Sequence[StepName], epoch: int) -> Finish:
    """Try the steps on the network of ``setup`` as it stands; what is before calibration is judged with what that makes of it.

    A network that adapts to a target is calibrated alone: nothing tells how its changes act on another domain.
    """
    if setup.config.data.target is not None:
        steps = [step for step in steps if step == "calibration"]
    if not steps:
        return Finish()
    predict = partial(measurer.predict, setup.network, "val", epoch=epoch)
    plain = predict()
    judge = _Judge(setup, labels=plain.labels, calibrates="calibration" in steps)
    network = _Network(setup, predict=lambda **view: _logits(predict(**view).probabilities), judge=judge)
    finish, seen, tried = Finish(), judge.look(_logits(plain.probabilities)), []
    for step, try_step in (("interpolation", network.try_interpolation), ("views", network.try_views)):
        if step in steps and (found := try_step(seen, so_far=finish)) is not None:
            tried.append(found.tried)
            if found.tried.kept:
                finish, seen = found.finish, found.seen
    if "calibration" in steps:
        tried.append(judge.tried("calibration", seen.logits, seen.calibrated))
        if tried[-1].kept:
            finish = replace(finish, calibration=judge.fit(seen.logits, plain.labels))
            seen = _Seen(judge.calibrated(seen.logits, by=finish.calibration), seen.calibrated)
        else:
            seen = _Seen(seen.logits, seen.logits)
    if "class_weights" in steps and (weighed := judge.try_class_weights(seen)) is not None:
        tried.append(weighed.tried)
        if weighed.tried.kept:
            finish = replace(finish, class_weights=weighed.weights)
    return replace(finish, tried=tuple(tried))


class _Seen(NamedTuple):
    """Logits N×K of the validation images, and each as a calibration fitted to others leaves it."""

    logits: Double
    calibrated: Double


class _Change(NamedTuple):
    """A finish with one step more, what is seen with it, and whether it stays."""

    finish: Finish
    seen: _Seen
    tried: Tried


class _Weighed(NamedTuple):
    """Weights K of classes, and whether they stay."""

    weights: tuple[float, ...]
    tried: Tried


class _Network:
    """A trained network that is looked at through its logits N×K of the validation images, and ends as it was."""

    def __init__(self, setup: Setup, *, predict: Callable[..., Double], judge: "_Judge") -> None:
        self._setup, self._predict, self._judge = setup, predict, judge
        self._start: dict[str, torch.Tensor] = {}

    def try_interpolation(self, seen: _Seen, *, so_far: Finish) -> _Change | None:
        """Nearer to where it began; None where nothing but the head has trained, or from nothing."""
        self._start = starting_state(self._setup)
        if not self._start:
            return None
        candidates = [seen, *(self._judge.look(self._logits(share)) for share in SHARES)]
        best, chosen = self._judge.choose([each.calibrated for each in candidates])
        tried = self._judge.tried("interpolation", seen.calibrated, chosen)
        tried = replace(tried, kept=tried.kept and best > 0)
        return _Change(replace(so_far, interpolation=(1.0, *SHARES)[best]), candidates[best], tried)

    def try_views(self, seen: _Seen, *, so_far: Finish) -> _Change | None:
        """The mean over flips and turns; None where ``augment`` allows none."""
        views = symmetries(self._setup.config.augment)[1:]
        if not views:
            return None
        others = [self._logits(so_far.interpolation, view=view) for view in views]
        averaged = self._judge.look(np.mean([seen.logits, *others], axis=0))
        tried = self._judge.tried("views", seen.calibrated, averaged.calibrated)
        return _Change(replace(so_far, views=tuple(views)), averaged, tried)

    def _logits(self, share: float, **view: Symmetry) -> Double:
        if share == 1:
            return self._predict(**view)
        with interpolated(self._setup.network, self._start, share=share):
            return self._predict(**view)


class _Judge:
    """Says of logits N×K of the validation images how good they are."""

    def __init__(self, setup: Setup, *, labels: Labels, calibrates: bool) -> None:
        self._classes, self._labels, self._calibrates = setup.pack.classes, labels, calibrates
        self._log_shares = log_shares_of(setup).double().numpy()
        self._metric = setup.config.train.metric
        self._balanced = self._metric == "val/balanced_accuracy"
        self._counts = np.bincount(labels, minlength=len(self._classes))
        is_known = self._metric in GOES_BY_SHARES and setup.config.data.target is None
        self._fits_tau = is_known and bool(self._counts.min() >= NUM_FOLDS)

    def fit(self, logits: Double, labels: Labels) -> Calibration:
        return fit_calibration(
            logits, labels=labels, log_shares=self._log_shares, balanced=self._balanced, fits_tau=self._fits_tau
        )

    def look(self, logits: Double) -> _Seen:
        """Logits with their calibration, where there is one at all."""

        def rule(some: Double, labels: Labels) -> Any:
            return partial(self.fit(some, labels).apply, log_shares=self._log_shares)

        return _Seen(logits, held_out(logits, labels=self._labels, fit=rule) if self._calibrates else logits)

    def calibrated(self, logits: Double, *, by: Calibration) -> Double:
        """Logits as a calibration leaves them."""
        return by.apply(logits, log_shares=self._log_shares)

    def try_class_weights(self, seen: _Seen) -> _Weighed | None:
        """Weights of classes for the metric, fitted to all images; None for a metric that is no score of answers."""
        metric = self._metric.removeprefix("val/")
        if metric not in WEIGHED:
            return None
        fit = partial(fit_class_weights, metric=metric, free=self._counts >= NUM_FOLDS)
        after = held_out(
            seen.calibrated, labels=self._labels, fit=lambda some, labels: partial(np.add, fit(some, labels=labels))
        )
        first, second = (logits.argmax(axis=1) for logits in (after, seen.calibrated))
        found = compare(
            first,
            second,
            labels=self._labels,
            num_classes=len(self._classes),
            metric=metric,
            confidence=ONE_DEVIATION,
        )
        scores = {"before": self._scores(seen.calibrated), "after": self._scores(after)}
        tried = Tried(step="class_weights", by=metric, kept=found.gain.low > 0, **scores)
        return _Weighed(tuple(np.exp(fit(seen.logits, labels=self._labels)).tolist()), tried)

    def choose(self, candidates: Sequence[Double]) -> tuple[int, Double]:
        """Which of these is best, and each image's logits as others would have chosen."""
        return choose_held_out(candidates, labels=self._labels, balanced=self._balanced)

    def tried(self, step: StepName, before: Double, after: Double) -> Tried:
        """The step, kept where it lowers the loss."""
        scores = [self._scores(each) for each in (before, after)]
        by = "balanced_loss" if self._balanced else "loss"
        return Tried(step=step, by=by, kept=scores[1][by] < scores[0][by], before=scores[0], after=scores[1])

    def _scores(self, logits: Double) -> dict[str, float]:
        metrics = score(softmax(logits, axis=1), labels=self._labels, classes=self._classes).metrics
        return metrics | {"balanced_loss": cross_entropy(logits, labels=self._labels, balanced=True)}


def _logits(probabilities: Double) -> Double:
    """Logits less a number of each image's own."""
    logits: Double = np.log(np.maximum(probabilities, LEAST))
    return logits
