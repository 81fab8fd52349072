"""The sections of a space file: every field with its unit, range and effect."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainable.config.trial import PathText
from trainable.config.validation import as_text, did_you_mean
from trainable.metrics import MEASURES, MetricName

STEPS = ("ssl", "meta")  # trainings before the search, and what stands for their weights in model.weights
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """A frozen part of the space file; unknown keys, wrong types and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BudgetSection(Section):
    """When no new trial is begun any more: what is at work then is finished, but stopped in time where the clock decides."""

    hours: float | None = Field(
        None,
        gt=0,
        description="Hours by the clock in which the whole `run` is to end, test score and report included. Only the time counts "
        "in which the search is at work: none passes between a crash and its resume. Not with `minutes`.",
    )
    minutes: float | None = Field(None, gt=0, description="`hours`, in minutes.")
    gpu_hours: float | None = Field(
        None, gt=0, description="Hours of work summed over trials, each weighed by its share of a GPU (whole on a CPU)."
    )
    epochs: int | None = Field(None, ge=1, description="Epochs summed over all trials.")

    @property
    def seconds(self) -> float | None:
        """The time by the clock; None without a bound."""
        if self.minutes is not None:
            return self.minutes * 60
        return None if self.hours is None else self.hours * 3600

    @property
    def is_bounded(self) -> bool:
        """Whether there is any bound."""
        return any(value is not None for value in (self.seconds, self.gpu_hours, self.epochs))


class SearchSection(Section):
    """What the search is called, what it is after, how much it may spend."""

    name: str = Field(
        pattern=NAME_PATTERN,
        examples=["resnet-1"],
        description="Name of the search, its folder and the Optuna study: letters, digits, `.`, `_`, `-`.",
    )
    metric: MetricName = Field(
        "val/balanced_accuracy",
        description="What trials are compared by. With `data.target`, `target/…` judges them on its images without labels "
        "(definitions in docs/techniques.md); `oracle/…` by its labels, where `data.oracle` allows it.",
    )
    choose_by: list[MetricName] = Field(
        [],
        description="Metrics whose ranks, averaged, choose the final one of the trials trained to the end (`scheduler.finalists` "
        "at least), each at its best epoch by `metric`; without them `metric` chooses. No soup is made with them.",
    )
    trials: int | None = Field(
        None,
        ge=1,
        description="Most configurations begun; raise it to go on with a finished search. With a `budget` it may be left out: "
        "as many as that allows.",
    )
    seed: int = Field(0, ge=0, description="Seed of the sampler and of every trial.")
    budget: BudgetSection = BudgetSection()
    confirm: int = Field(
        0,
        ge=0,
        le=5,
        description="Last candidates, the best of the trials trained to the end (`scheduler.finalists` at least), that the "
        "search trains a second time, with another seed, inside its budget, before it names its winner: the best on average over "
        "both seeds. 0 trains none, and one seed decides. No soup is made with it, since nothing would confirm that. "
        "`promote.confirm` is what `promote` does later, with more seeds; it takes these refits as its first.",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        description="Begin no more trials once the rest of the budget is expected to improve the best by less than this, in "
        "units of `metric`; those that are due to go on still do. What is expected is told; docs/techniques.md says how it is "
        "estimated. Without it the budget is spent.",
    )
    folder: PathText = Field("searches", description="Folder of all searches; this one writes to `folder/name` only.")
    storage: str | None = Field(
        None,
        pattern=r"^postgresql(\+\w+)?://\S+$",
        examples=["postgresql://user@host/database"],
        description="Database of the ledger; without it a journal file in the search's folder.",
    )
    warm_start: Literal["auto"] | None = Field(
        None,
        description="`auto` begins with configurations, never values, that were best in the other searches in `folder`, most "
        "of all on images like these: as many classes, training images and pixels, a largest class as large, the same backbone. "
        "They are chosen once, when the search begins, and noted in its ledger; what this space does not have is left out.",
    )
    num_warm: int = Field(4, ge=1, le=20, description="How many these are at most.")
    constraints: dict[str, float] = Field(
        {},
        description="The most that a configuration's network may take: `model/parameters`, and `usage/latency_ms`, milliseconds "
        "for one image on the worker. Each is measured before the first epoch; a trial above is FAILED and not trained.",
    )
    max_failures: int = Field(
        3,
        ge=0,
        description="How often one trial goes on from its last epoch after an error of its own, before it counts as FAILED. "
        "Three trials in a row that fail by the same error stop the search.",
    )
    epoch_limit_minutes: float | None = Field(
        None,
        gt=0,
        description="A worker that has reported no epoch for so long is ended, and its trial goes on as after an error of its "
        "own; the first epoch also waits for images and weights. Null: never.",
    )
    max_losses: int = Field(
        20,
        ge=0,
        description="How often one trial goes on from its last epoch after its worker was lost, with its node or for want of the "
        "host's memory, before it counts as FAILED.",
    )

    @property
    def epoch_limit_seconds(self) -> float | None:
        """``epoch_limit_minutes`` in seconds."""
        return None if self.epoch_limit_minutes is None else 60 * self.epoch_limit_minutes

    @field_validator("constraints")
    @classmethod
    def _known_and_positive(cls, constraints: dict[str, float]) -> dict[str, float]:
        for name, most in constraints.items():
            if name not in MEASURES:
                raise ValueError(f"{name!r} is not measured{did_you_mean(name, MEASURES)}")
            if most <= 0:
                raise ValueError(f"{name}: got {as_text(most)}, must be above 0")
        return constraints


class SamplerSection(Section):
    """Who proposes configurations."""

    name: Literal["tpe", "random", "gp"] = Field("tpe", description="Model of good values; `random` has none.")
    random_share: float = Field(
        0.2, ge=0, le=1, description="Share of the proposals drawn at random all the same (BOHB, Falkner et al. 2018)."
    )
    startup: int | None = Field(
        None,
        ge=1,
        description="Results at a rung before the model is asked; without it the number of paths + 3, for `freeze_thaw` 4.",
    )
    fresh: int = Field(
        0, ge=0, description="Random proposals after the recipes of `try_first`, before the model is asked."
    )


def geometric_rungs(min_epochs: int, *, max_epochs: int, reduction: int) -> tuple[int, ...]:
    """``min_epochs``·``reduction``^k while that is below ``max_epochs``, then ``max_epochs``."""
    rungs = []
    epoch = min_epochs
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction
    return (*rungs, max_epochs)


def thirds_of_rungs(min_epochs: int, *, max_epochs: int, reduction: int) -> tuple[int, ...]:
    """The geometric rungs and two more between each two of them, at even distances of the logarithm, rounded."""
    rungs = geometric_rungs(min_epochs, max_epochs=max_epochs, reduction=reduction)
    between = {round(rung * reduction ** (third / 3)) for rung in rungs for third in (1, 2)}
    return tuple(sorted({*rungs, *(epoch for epoch in between if epoch < max_epochs)}))


class SchedulerSection(Section):
    """How long trials are trained, who goes on."""

    name: Literal["asha", "freeze_thaw", "none"] = Field(
        "asha",
        description="Successive halving (Li et al. 2020); a model of learning curves that trains on, or begins, what promises "
        "most improvement a second; or every trial to the end.",
    )
    mode: Literal["promote", "stop"] = Field(
        "promote",
        description="A trial waits at its rung until it is among the best there, or is stopped there if it is not.",
    )
    min_epochs: int = Field(3, ge=1, le=1000, description="First rung, epochs.")
    max_epochs: int = Field(
        ge=1, le=1000, description="Length of the full training, epochs; every trial's train.epochs."
    )
    reduction: int = Field(3, ge=2, le=64, description="One in this many goes on; rungs are this factor apart.")
    finalists: int = Field(
        1,
        ge=1,
        description="Trials trained to the end at least; one more where a worker is free while the last of them is.",
    )
    audit: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the stopped trials, drawn by seed and number, that are trained to the end all the same when "
        "nothing else is left to do, inside the budget, of which half is kept for them at most: the report says how many would "
        "have won.",
    )
    cost: Literal["seconds", "epochs"] = Field(
        "seconds",
        description="What `freeze_thaw` divides the improvement it expects by: seconds as measured, with which two runs of one "
        "seed may try other things, or epochs.",
    )

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.name != "none" and self.min_epochs > self.max_epochs:
            raise ValueError(f"min_epochs: {self.min_epochs} is above max_epochs: {self.max_epochs}")
        return self

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial is judged, the last being the end of training."""
        if self.name == "freeze_thaw":
            return thirds_of_rungs(self.min_epochs, max_epochs=self.max_epochs, reduction=self.reduction)
        shortest = self.max_epochs if self.name == "none" else self.min_epochs
        return geometric_rungs(shortest, max_epochs=self.max_epochs, reduction=self.reduction)


class ResourcesSection(Section):
    """What one trial occupies."""

    cpu: float = Field(1.0, gt=0, description="CPU cores for each trial.")
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        0.0,
        description="GPUs for each trial: a share up to 1, or a whole number. With `auto` trials share those that there are when "
        "work is handed out, by what epochs of the same network, images, batch and depth took alone and beside others, the "
        "first of a kind alone; none where there is none, one on a joined cluster that has room for no trial yet.",
    )
    concurrency: int | None = Field(None, ge=1, description="Most trials at work at once; without it what fits.")

    @field_validator("gpu")
    @classmethod
    def _share_or_whole(cls, gpu: float | str) -> float | str:
        if not isinstance(gpu, str) and gpu > 1 and gpu != int(gpu):
            raise ValueError(f"got {gpu}, must be a share from 0 to 1, a whole number, or auto")
        return gpu


class TrackingSection(Section):
    """Where MLflow shows the search."""

    uri: PathText = Field(
        "sqlite:///mlflow.db",
        min_length=1,
        description="MLflow tracking address; `MLFLOW_TRACKING_URI` of the environment where none is given.",
    )
    experiment: str | None = Field(None, description="MLflow experiment; without it the search's name.")
