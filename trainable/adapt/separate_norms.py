"""The method that keeps statistics of batch norms for each domain: dsbn."""

import torch

from trainable.adapt.seen import Seen, Terms, classified
from trainable.model.norms import target_statistics


def dsbn(seen: Seen) -> Terms:
    """Each domain moves its own statistics (Chang et al. 2019)."""
    terms = classified(seen)
    with target_statistics(seen.network), torch.no_grad(), seen.autocast:
        seen.network.features(seen.others)
    return terms
