"""What a space file asks to be done with the best trials when all are decided."""

from search.space.offered import offered
from search.space.spec import FinishStep, SearchSpec

WEIGHED_METRICS = ("val/accuracy", "val/balanced_accuracy", "val/macro_f1")  # for which classes can be weighed
NUM_SHARES = 3  # of trained weights that `interpolation` tries


def makes_soup(spec: SearchSpec) -> bool:
    """Whether a search averages its best trials: not where several metrics, or other seeds, decide, which judge no soup."""
    return spec.soup >= 2 and not spec.search.choose_by and not spec.search.confirm


def finish_steps(spec: SearchSpec) -> list[FinishStep]:
    """The steps of ``finish`` that are taken: of a network for another domain validation images tell a temperature alone."""
    if spec.base.get("data.target") is not None:
        return [step for step in spec.finish if step == "calibration"]
    return [step for step in spec.finish if step != "class_weights" or spec.search.metric in WEIGHED_METRICS]


def num_finish_passes(spec: SearchSpec) -> int:
    """How often validation images are looked at for the finish, its views aside, of which nothing is kept."""
    steps = finish_steps(spec)
    return bool(steps) + NUM_SHARES * ("interpolation" in steps)


def num_turned(spec: SearchSpec) -> int:
    """How many flips and turns of an image a trial's ``augment`` allows at most, beside the image itself."""
    flips = {"none": 1, "horizontal": 2, "both": 4}
    flip = max(flips[str(value)] for value in offered(spec, "augment.flip"))
    turns = 4 if "quarter" in offered(spec, "augment.rotate") else 1
    return min(flip * turns, 8) - 1  # a half turn is both flips
