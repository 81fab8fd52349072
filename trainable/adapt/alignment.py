"""Methods that draw the features of both domains together: dann, cdan, mmd, coral."""

from torch import Tensor

from trainable.adapt.losses import coral_loss, domain_loss, entropy_weights, mmd_loss, reverse_gradient
from trainable.adapt.seen import Seen, Terms, as_scalar, weighted_sum


def dann(seen: Seen) -> Terms:
    """A domain classifier tells the features' domains, its reversed gradient makes the network hide it (Ganin et al. 2016)."""
    logits, _, source, target = seen.together()
    strength = seen.weight(source, target)
    classification = seen.classify(logits)
    source, target = (reverse_gradient(features, strength=strength) for features in (source, target))
    loss_and_accuracy = domain_loss(seen.network.adapter.discriminator, source, target)
    return _adversarial(classification, loss_and_accuracy, strength=strength)


def cdan(seen: Seen) -> Terms:
    """DANN of features × predictions, certain ones counting up to twice (CDAN+E, Long et al. 2018)."""
    logits, target_logits, source, target = seen.together()
    strength, adapter = seen.weight(source, target), seen.network.adapter
    classification = seen.classify(logits)
    source, target = (reverse_gradient(features, strength=strength) for features in (source, target))
    belief, target_belief = (scores.detach().float().softmax(dim=1) for scores in (logits, target_logits))
    loss_and_accuracy = domain_loss(
        adapter.discriminator,
        adapter.map(source, belief),
        adapter.map(target, target_belief),
        source_weights=entropy_weights(belief),
        target_weights=entropy_weights(target_belief),
    )
    return _adversarial(classification, loss_and_accuracy, strength=strength)


def mmd(seen: Seen) -> Terms:
    """The multi-kernel discrepancy of the features is small (Long et al. 2015)."""
    logits, _, source, target = seen.together()
    term = mmd_loss(source, target, widths=seen.config.bandwidths)
    return seen.minimise(seen.classify(logits), term, source=source, target=target)


def coral(seen: Seen) -> Terms:
    """The difference of the features' covariances is small (Sun and Saenko 2016)."""
    logits, _, source, target = seen.together()
    return seen.minimise(seen.classify(logits), coral_loss(source, target), source=source, target=target)


def _adversarial(
    classification: Tensor, loss_and_accuracy: tuple[Tensor, Tensor], *, strength: float | Tensor
) -> Terms:
    """The strength is in the reversed gradient: the discriminator itself learns at its own rate."""
    term, accuracy = loss_and_accuracy
    terms = weighted_sum(classification, term, weight=1.0)
    return Terms(
        terms.loss, terms.parts | {"adapt_weight": as_scalar(strength, like=term), "domain_accuracy": accuracy}
    )
