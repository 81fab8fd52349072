"""The sections of a space file on what follows a search: its promotion, its refresh when data change."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from search.space.sections import NAME_PATTERN, Section
from trainable.metrics import ComparedMetric


class ConfirmSection(Section):
    """What is trained again, on fresh seeds, before one of them is promoted."""

    top: int = Field(3, ge=1, le=20, description="Best trials that are refitted; the soup is too, where it was kept.")
    seeds: int = Field(3, ge=1, le=20, description="Refits of each, every one with a fresh seed.")


class GateSection(Section):
    """What a candidate must show, on test images that neither it nor the champion was trained on, to become champion."""

    metric: ComparedMetric = Field("balanced_accuracy", description="By what candidate and champion are compared.")
    better_by: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="The candidate's gain must be more than this at the lower end of its paired bootstrap interval.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Confidence of that lower end, and of every interval on the model's card."
    )
    mcnemar_p: float | None = Field(
        0.05,
        gt=0,
        le=1,
        description="Exact McNemar test: alone right on more images than the champion, with p at most this; null asks nothing. "
        "It weighs images, not classes.",
    )
    min_recall: Annotated[float, Field(ge=0, le=1)] | dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        0.0, description="Recall that every class must reach, or by class, then 0 for those not named."
    )
    max_ece: float | None = Field(
        0.2, gt=0, le=1, description="Ceiling of the expected calibration error; null asks nothing."
    )
    old_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="What may be lost of `metric` on the champion's own test images, where data changed.",
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="Most milliseconds for one image, decoding included, on the machine that promotes."
    )
    max_size_mb: float | None = Field(None, gt=0, description="Most megabytes of the packaged model.")

    def floors(self, classes: Iterable[str]) -> dict[str, float]:
        """The recall asked of these classes, and of those that are named."""
        asked = self.min_recall
        if not isinstance(asked, dict):
            return dict.fromkeys(classes, asked)
        return {**dict.fromkeys(classes, 0.0), **asked}


class PromoteSection(GateSection):
    """From the best trials to a registered champion: `python -m search promote NAME`."""

    model: str | None = Field(
        None,
        pattern=NAME_PATTERN,
        description="Registered model that searches compete for; without it the experiment's name, else the search's.",
    )
    confirm: ConfirmSection = ConfirmSection()
    coverage: float | None = Field(
        None,
        gt=0,
        lt=1,
        examples=[0.95],
        description="Share of images, drawn as validation images were, for which the classes that the packaged model calls "
        "plausible are to hold the right one (split conformal prediction, Sadinle et al. 2019); it answers `unsure` where they "
        "are not just one. Null: it never does.",
    )
    auto: bool = Field(
        False, description="Whether `refresh` and `watch` promote what the gate lets through; else `promote` does."
    )


class RefreshSection(Section):
    """When new data are worth what, for `python -m search refresh SPACE`: the ladder from nothing to a full search."""

    settle_seconds: float = Field(
        60.0, ge=0, description="Nothing is begun while a file of the data is younger than this, seconds."
    )
    marker: str | None = Field(
        None,
        pattern=r"^[^/\\]+$",
        examples=["_SUCCESS"],
        description="File in the data's folder without which they count as half-copied.",
    )
    small_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Changed images, as a share of the champion's, up to which, without drift, the champion is only asked again; "
        "with more its configuration is trained again.",
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="What the champion may lose of `promote.metric` on new images against its own test images; it counts as "
        "lost where the loss is larger with `promote.confidence`.",
    )
    drift_p: float = Field(
        0.01,
        ge=0.005,  # the least that 200 permutations tell
        le=1,
        description="Drift: most probability of the difference without any, corrected for the classes.",
    )
    drift_effect: float = Field(
        0.1,
        ge=0,
        le=2,
        description="Drift: least size of the difference, the maximum mean discrepancy of the features or Cramér's V of the "
        "classes; it does not grow with the number of images.",
    )
    trials_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Trials of a warm search, as a share of `search.trials`, but no fewer than `warm` and `fresh` need.",
    )
    warm: int = Field(
        5,
        ge=0,
        le=5,
        description="Best distinct configurations of the last searches, the champion's first, tried first.",
    )
    fresh: int = Field(
        8, ge=1, description="Random configurations of a warm search before the sampler's model is asked."
    )
    cooldown_hours: float = Field(0.0, ge=0, description="Least hours from one search's end to the next one's begin.")
    gpu_hours_per_month: float | None = Field(
        None,
        gt=0,
        description="No search begins in a calendar month, UTC, whose searches have spent this; see `search.budget`.",
    )
