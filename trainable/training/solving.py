"""Solves for the head instead of training it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.model.network import Network
from trainable.model.phase import STRATEGIES
from trainable.model.text_tower import text_start
from trainable.statistics.probe import solved_head
from trainable.statistics.prototypes import prototypes
from trainable.training.evaluate import Predicted
from trainable.training.measure import Measurer

Parameters = dict[str, Tensor]  # of the head's last layer, by name


def start_head(network: Network, *, measurer: Measurer) -> None:
    """Give the head what it begins with, where that is not random: its solution, or what class names are in text."""
    config = measurer.config
    if config.model.head == "text":
        network.set_head(**text_start(config, classes=measurer.inputs.full.pack.classes))
    elif STRATEGIES[config.finetune.strategy].solves_head:
        solve_head(network, measurer=measurer, epoch=1)


def solve_head(network: Network, *, measurer: Measurer, epoch: int) -> Predicted:
    """Give the head its solution on the features as they are (LP-FT, Kumar et al. 2022).

    The features, which it gives back with the labels, are those of the training images as an evaluation in ``epoch`` sees
    them, kept and shared as all that frozen layers compute. Raises UserError where a linear head has fewer than two classes.
    """
    predicted = measurer.predict(network, "train", epoch=epoch)
    solve = SOLVERS[measurer.config.finetune.solver]
    network.set_head(**solve(predicted, measurer.config, measurer.inputs.full.pack.classes))
    return predicted


def _logistic_regression(predicted: Predicted, config: TrialConfig, classes: Sequence[str]) -> Parameters:
    return _probe(predicted, config=config, num_classes=len(classes), kind="logreg")


def _ridge(predicted: Predicted, config: TrialConfig, classes: Sequence[str]) -> Parameters:
    return _probe(predicted, config=config, num_classes=len(classes), kind="ridge")


def _probe(predicted: Predicted, *, config: TrialConfig, num_classes: int, kind: str) -> Parameters:
    c = config.finetune.probe_c
    weight, bias = solved_head(predicted.features, predicted.labels, num_classes=num_classes, c=c, kind=kind)
    return {"weight": weight, "bias": bias}


def _class_means(predicted: Predicted, _config: TrialConfig, classes: Sequence[str]) -> Parameters:
    weight, scale = prototypes(predicted.features, predicted.labels, num_classes=len(classes))
    return {"weight": torch.from_numpy(weight).float(), "scale": torch.tensor([scale])}


def _of_text(_predicted: Predicted, config: TrialConfig, classes: Sequence[str]) -> Parameters:
    return text_start(config, classes=classes)


def _start(predicted: Predicted, config: TrialConfig, classes: Sequence[str]) -> Parameters:
    """What gradients begin with, as LP-FT has it."""
    solve = _class_means if config.model.head == "cosine" else _logistic_regression
    return solve(predicted, config, classes)


SOLVERS: dict[str, Callable[[Predicted, TrialConfig, Sequence[str]], Parameters]] = {
    "gradient": _start,
    "lbfgs": _logistic_regression,
    "closed_form": _ridge,
    "prototypes": _class_means,
    "text": _of_text,
}
