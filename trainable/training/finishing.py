"""What is done to a trained network before it is handed over, each step kept where it helps on validation images.

A step is judged by the cross-entropy, of classes weighed alike where the trial's metric is balanced accuracy: a metric that
counts some hundred images is too coarse for it, and the trial was chosen for its luck in it. The classes' shares are left alone
for a metric of which it is not known how they should count, and where a class has too few validation images to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import softmax

from trainable.loader.symmetries import Symmetry, symmetries
from trainable.model.network import Network
from trainable.statistics.arrays import Double, Labels
from trainable.statistics.calibration import NUM_FOLDS, Calibration, cross_entropy, fit_calibration, held_out
from trainable.statistics.scores import score
from trainable.training.losses import prior_shift
from trainable.training.measure import Measurer
from trainable.training.setup import Setup

StepName = Literal["views", "calibration"]
GOES_BY_SHARES = ("val/balanced_accuracy", "val/accuracy", "val/loss")  # metrics for which it is known how shares count
LEAST = float(np.finfo(np.float64).tiny)  # of a probability whose logarithm is taken


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A step: scores of validation images that it was not fitted to, without it and with it, and whether it stays.

    It is judged ``by`` one of these.
    """

    step: StepName
    by: Literal["loss", "balanced_loss"]
    kept: bool
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What a network is given: its logits are averaged over the image and its ``views``, then calibrated."""

    views: Sequence[Symmetry] = ()
    calibration: Calibration = field(default_factory=Calibration)
    tried: Sequence[Tried] = field(default=(), compare=False)

    def apply(self, network: Network, *, log_shares: torch.Tensor) -> None:
        """Make a network the finished one; ``log_shares`` K are the logarithms of the classes' shares in training."""
        network.views = tuple(self.views)
        network.shift += self.calibration.tau * log_shares.to(network.shift)
        network.cool(self.calibration.temperature)

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


def read_finish(document: Mapping[str, Any]) -> Finish:
    """A finish from its dict, without what was tried."""
    views = tuple((turns, tuple(axes)) for turns, axes in document.get("views", ()))
    return Finish(views=views, calibration=Calibration(**document.get("calibration", {})))


def log_shares_of(setup: Setup) -> torch.Tensor:
    """The logarithms of the classes' shares of the training images, K."""
    return prior_shift(setup.counts, tau=1.0)


def find_finish(setup: Setup, *, measurer: Measurer, steps: Sequence[StepName], epoch: int) -> Finish:
    """Try the steps on the network of ``setup`` as it stands; views are judged with what calibration makes of them.

    A network that adapts to a target is left as it is: validation images are of another domain.
    """
    if not steps or setup.config.data.target is not None:
        return Finish()
    predict = partial(measurer.predict, setup.network, "val", epoch=epoch)
    plain = predict()
    judge = _Judge(setup, labels=plain.labels, calibrates="calibration" in steps)
    logits, tried = _logits(plain.probabilities), []
    calibrated = judge.held_out(logits)
    views: tuple[Symmetry, ...] = ()
    every = symmetries(setup.config.augment)[1:]
    if "views" in steps and every:
        others = [_logits(predict(view=view).probabilities) for view in every]
        averaged: Double = np.mean([logits, *others], axis=0)
        averaged_calibrated = judge.held_out(averaged)
        tried.append(judge.tried("views", calibrated, averaged_calibrated))
        if tried[-1].kept:
            logits, calibrated, views = averaged, averaged_calibrated, tuple(every)
    calibration = Calibration()
    if "calibration" in steps:
        tried.append(judge.tried("calibration", logits, calibrated))
        if tried[-1].kept:
            calibration = judge.fit(logits, plain.labels)
    return Finish(views=views, calibration=calibration, tried=tuple(tried))


class _Judge:
    """Says of logits N×K of the validation images how good they are."""

    def __init__(self, setup: Setup, *, labels: Labels, calibrates: bool) -> None:
        self._classes, self._labels, self._calibrates = setup.pack.classes, labels, calibrates
        self._log_shares = log_shares_of(setup).double().numpy()
        self._balanced = setup.config.train.metric == "val/balanced_accuracy"
        fewest = np.bincount(labels, minlength=len(self._classes)).min()
        self._fits_tau = setup.config.train.metric in GOES_BY_SHARES and fewest >= NUM_FOLDS

    def fit(self, logits: Double, labels: Labels) -> Calibration:
        return fit_calibration(
            logits, labels=labels, log_shares=self._log_shares, balanced=self._balanced, fits_tau=self._fits_tau
        )

    def held_out(self, logits: Double) -> Double:
        """Each as a calibration fitted to others leaves it, where there is one at all."""

        def rule(some: Double, labels: Labels) -> Any:
            return partial(self.fit(some, labels).apply, log_shares=self._log_shares)

        return held_out(logits, labels=self._labels, fit=rule) if self._calibrates else logits

    def tried(self, step: StepName, before: Double, after: Double) -> Tried:
        """The step, kept where it lowers the loss."""
        scores = [self._scores(each) for each in (before, after)]
        by: Literal["loss", "balanced_loss"] = "balanced_loss" if self._balanced else "loss"
        return Tried(step=step, by=by, kept=scores[1][by] < scores[0][by], before=scores[0], after=scores[1])

    def _scores(self, logits: Double) -> dict[str, float]:
        metrics = score(softmax(logits, axis=1), labels=self._labels, classes=self._classes).metrics
        return metrics | {"balanced_loss": cross_entropy(logits, labels=self._labels, balanced=True)}


def _logits(probabilities: Double) -> Double:
    """Logits less a number of each image's own."""
    logits: Double = np.log(np.maximum(probabilities, LEAST))
    return logits
