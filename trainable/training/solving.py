"""Solves for the head instead of training it."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.model.network import Network
from trainable.statistics.probe import solved_head
from trainable.statistics.prototypes import prototypes
from trainable.training.evaluate import Predicted
from trainable.training.measure import Measurer

Parameters = dict[str, Tensor]  # of the head's last layer, by name


def solve_head(network: Network, *, measurer: Measurer, epoch: int) -> Predicted:
    """Give the head its solution on the features as they are (LP-FT, Kumar et al. 2022).

    The features, which it gives back with the labels, are those of the training images as an evaluation in ``epoch`` sees
    them, kept and shared as all that frozen layers compute. Raises UserError where a linear head has fewer than two classes.
    """
    predicted = measurer.predict(network, "train", epoch=epoch)
    solve = SOLVERS[measurer.config.finetune.solver]
    network.set_head(**solve(predicted, measurer.config, len(network.shift)))
    return predicted


def _logistic_regression(predicted: Predicted, config: TrialConfig, num_classes: int) -> Parameters:
    return _probe(predicted, config=config, num_classes=num_classes, kind="logreg")


def _ridge(predicted: Predicted, config: TrialConfig, num_classes: int) -> Parameters:
    return _probe(predicted, config=config, num_classes=num_classes, kind="ridge")


def _probe(predicted: Predicted, *, config: TrialConfig, num_classes: int, kind: str) -> Parameters:
    c = config.finetune.probe_c
    weight, bias = solved_head(predicted.features, predicted.labels, num_classes=num_classes, c=c, kind=kind)
    return {"weight": weight, "bias": bias}


def _class_means(predicted: Predicted, _config: TrialConfig, num_classes: int) -> Parameters:
    weight, scale = prototypes(predicted.features, predicted.labels, num_classes=num_classes)
    return {"weight": torch.from_numpy(weight).float(), "scale": torch.tensor([scale])}


def _start(predicted: Predicted, config: TrialConfig, num_classes: int) -> Parameters:
    """What gradients begin with, as LP-FT has it."""
    solve = _class_means if config.model.head == "cosine" else _logistic_regression
    return solve(predicted, config, num_classes)


SOLVERS: dict[str, Callable[[Predicted, TrialConfig, int], Parameters]] = {
    "gradient": _start,
    "lbfgs": _logistic_regression,
    "closed_form": _ridge,
    "prototypes": _class_means,
}
