"""The method whose predictions on the target are to confuse no classes: mcc."""

from trainable.adapt.losses import mcc_loss
from trainable.adapt.seen import Seen, Terms


def mcc(seen: Seen) -> Terms:
    """Minimum class confusion (Jin et al. 2020)."""
    logits, target_logits, source, target = seen.together()
    term = mcc_loss(target_logits, temperature=seen.config.temperature)
    return seen.minimise(seen.classify(logits), term, source=source, target=target)
