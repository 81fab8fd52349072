"""What each technique asks of a configuration: the keys it reads, the settings it needs.

This table is what may be known of a technique without torch. What a technique does stands in a table of the same names beside
its code; ``trainable.config.trial`` has the same names as the values of a key.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Technique:
    """One value of a choice. ``keys`` are the dotted paths that it reads and that some other value of the choice does not."""

    keys: tuple[str, ...] = ()


LOSSES = {
    "ce": Technique(),
    "focal": Technique(keys=("loss.focal_gamma", "loss.focal_alpha")),
}

CLASS_WEIGHTS = {
    "none": Technique(),
    "inverse": Technique(keys=("loss.class_weight_power",)),
    "effective": Technique(keys=("loss.class_weight_power",)),
}

CHOICES: dict[str, Mapping[str, Technique]] = {
    "loss.name": LOSSES,
    "loss.class_weights": CLASS_WEIGHTS,
}
