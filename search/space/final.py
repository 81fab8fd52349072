"""What a space file asks to be done with the best trials when all are decided."""

from collections.abc import Sequence

from search.space.paths import defaults
from search.space.spec import SearchSpec
from search.space.values import Value


def makes_soup(spec: SearchSpec) -> bool:
    """Whether a search averages its best trials: not where several metrics, or other seeds, decide, which judge no soup."""
    return spec.soup >= 2 and not spec.search.choose_by and not spec.search.confirm


def finish_steps(spec: SearchSpec) -> list[str]:
    """The steps of ``finish`` that can be taken: validation images say nothing of a network for another domain."""
    return [] if spec.base.get("data.target") is not None else list(spec.finish)


def num_turned(spec: SearchSpec) -> int:
    """How many flips and turns of an image a trial's ``augment`` allows at most, beside the image itself."""
    flips = {"none": 1, "horizontal": 2, "both": 4}
    flip = max(flips[str(value)] for value in _offered(spec, "augment.flip"))
    turns = 4 if "quarter" in _offered(spec, "augment.rotate") else 1
    return min(flip * turns, 8) - 1  # a half turn is both flips


def _offered(spec: SearchSpec, path: str) -> Sequence[Value]:
    dimension = spec.space.dimensions.get(path)
    return [(defaults() | spec.base)[path]] if dimension is None else dimension.extremes
