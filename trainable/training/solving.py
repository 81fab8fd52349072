"""Solves for the head instead of training it."""

from trainable.model.network import Network
from trainable.statistics.probe import solved_head
from trainable.training.evaluate import Predicted
from trainable.training.measure import Measurer

KINDS = {
    "gradient": "logreg",
    "lbfgs": "logreg",
    "closed_form": "ridge",
}  # of the probe; before gradients too, as LP-FT has it


def solve_head(network: Network, *, measurer: Measurer, epoch: int) -> Predicted:
    """Give the head the solution of the probe on the features as they are (LP-FT, Kumar et al. 2022).

    The features, which it gives back with the labels, are those of the training images as an evaluation in ``epoch`` sees
    them, kept and shared as all that frozen layers compute. Raises UserError where there are fewer than two classes.
    """
    predicted = measurer.predict(network, "train", epoch=epoch)
    finetune = measurer.config.finetune
    weight, bias = solved_head(
        predicted.features,
        predicted.labels,
        num_classes=len(network.shift),
        c=finetune.probe_c,
        kind=KINDS[finetune.solver],
    )
    network.set_head(weight, bias)
    return predicted
