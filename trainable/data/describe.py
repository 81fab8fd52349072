"""Looks at a data set without decoding an image."""

from dataclasses import dataclass

from trainable.config.trial import DataConfig
from trainable.data.readers.read import read_source


@dataclass(frozen=True, kw_only=True)
class DataDescription:
    """Labelled images a class in every given split, or under ``all`` where the split is still to be cut.

    ``num_target`` images are of the domain to adapt to; ``notes`` are lines for the user.
    """

    num_images: int
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    domains: tuple[str, ...]
    num_target: int = 0
    notes: tuple[str, ...] = ()


def describe(config: DataConfig) -> DataDescription:
    """What is there; raises the same UserErrors as training would before it reads the first image."""
    source = read_source(config)
    domains = {sample.domain for sample in source.every_sample if sample.domain is not None}
    return DataDescription(
        num_images=len(source.samples),
        classes=source.classes,
        counts=source.counts(),
        domains=tuple(sorted(domains)),
        num_target=len(source.target),
        notes=source.notes,
    )
