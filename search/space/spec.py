"""One search said completely: every field with its unit, range and effect."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search.space.dimension import Choice, Dimension, parse_dimension
from search.space.paths import FIXED_IN_SEARCH, SET_BY_SEARCH, config_problems, defaults, flatten, nest, problem_of_path
from search.space.space import Space, corners, make_space
from search.space.values import Value
from trainable.config.meta import MetaSettings
from trainable.config.pretrain import PretrainSettings
from trainable.config.trial import MetricName, TrialConfig
from trainable.config.validation import shown
from trainable.errors import UserError

ORACLE = "ORACLE: the target's labels were read in this search; none of its results is an honest estimate"

STEPS = ("ssl", "meta")  # trainings before the search, and what stands for their weights in model.weights
BACKBONE = "backbone.safetensors"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NO_EFFECT_ON_RESULTS = frozenset({"data.cache", "data.workers"})


class Section(BaseModel):
    """A frozen part of the space file; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BudgetSection(Section):
    """When no new trial is begun any more; what is at work is finished."""

    gpu_hours: float | None = Field(
        None, gt=0, description="Hours of work summed over trials, each weighed by its share of a GPU (whole on a CPU)."
    )
    epochs: int | None = Field(None, ge=1, description="Epochs summed over all trials.")


class SearchSection(Section):
    """What the search is called, what it is after, how much it may spend."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
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
    trials: int = Field(ge=1, description="Most configurations begun; raise it to go on with a finished search.")
    seed: int = Field(0, ge=0, description="Seed of the sampler and of every trial.")
    budget: BudgetSection = BudgetSection()
    folder: str = Field("searches", description="Folder of all searches; this one writes to `folder/name` only.")
    storage: str | None = Field(
        None,
        pattern=r"^postgresql(\+\w+)?://\S+$",
        examples=["postgresql://user@host/database"],
        description="Database of the ledger; without it a journal file in the search's folder.",
    )
    max_failures: int = Field(
        3, ge=0, description="How often one trial is begun again after its worker was lost, before it counts as FAILED."
    )


class SamplerSection(Section):
    """Who proposes configurations."""

    name: Literal["tpe", "random", "gp"] = Field("tpe", description="Model of good values; `random` has none.")
    random_share: float = Field(
        0.2, ge=0, le=1, description="Share of the proposals drawn at random all the same (BOHB, Falkner et al. 2018)."
    )
    startup: int | None = Field(
        None, ge=1, description="Results at a rung before the model is asked; without it the number of paths + 3."
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


class SchedulerSection(Section):
    """How long trials are trained, who goes on."""

    name: Literal["asha", "none"] = Field(
        "asha", description="Successive halving (Li et al. 2020), or every trial to the end."
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
    finalists: int = Field(1, ge=1, description="Trials trained to the end at least.")

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.name == "asha" and self.min_epochs > self.max_epochs:
            raise ValueError(f"min_epochs: {self.min_epochs} is above max_epochs: {self.max_epochs}")
        return self

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial is judged, the last being the end of training."""
        shortest = self.max_epochs if self.name == "none" else self.min_epochs
        return geometric_rungs(shortest, max_epochs=self.max_epochs, reduction=self.reduction)


class ResourcesSection(Section):
    """What one trial occupies."""

    cpu: float = Field(1.0, gt=0, description="CPU cores for each trial.")
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        0.0,
        description="GPUs for each trial: a share up to 1, or a whole number; `auto` one where there is any, else none.",
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

    uri: str = Field("sqlite:///mlflow.db", min_length=1, description="MLflow tracking address.")
    experiment: str | None = Field(None, description="MLflow experiment; without it the search's name.")


class SelectSection(Section):
    """A cheap look at the backbones before any is trained."""

    keep: int = Field(3, ge=1, description="How many go into the search.")
    by: Literal["logme", "h_score"] = Field(
        "logme",
        description="Score of the frozen pooled features on the training images: LogME (You et al. 2021) or the regularised "
        "H-score (Bao et al. 2019, Ibrahim et al. 2022).",
    )


class SslSection(PretrainSettings):
    """A self-supervised pre-training before the search; `ssl` among the choices of `model.weights` stands for its result."""

    path: str | None = Field(
        None, description="Folder of images without labels, in any folders below; without it the training images."
    )
    weights: str = Field("pretrained", description="What it begins with, as `model.weights`.")


class MetaSection(MetaSettings):
    """A meta-training before the search; `meta` among the choices of `model.weights` stands for its result."""

    path: str = Field(description="Labelled images that tasks are drawn from, read as `data.path` is.")
    weights: str = Field("pretrained", description="What it begins with, as `model.weights`.")


class ConfirmSection(Section):
    """What is trained again, on fresh seeds, before one of them is promoted."""

    top: int = Field(3, ge=1, le=20, description="Best trials that are refitted; the soup is too, where it was kept.")
    seeds: int = Field(3, ge=1, le=20, description="Refits of each, every one with a fresh seed.")


class GateSection(Section):
    """What a candidate must show, on test images that neither it nor the champion was trained on, to become champion."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = Field(
        "balanced_accuracy", description="By what candidate and champion are compared."
    )
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
        pattern=MODEL_NAME,
        description="Registered model that searches compete for; without it the experiment's name, else the search's.",
    )
    confirm: ConfirmSection = ConfirmSection()
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


class SearchSpec(Section):
    """A whole space file, checked: every value that can be drawn is one its field takes.

    ``base`` is kept by dotted path, however it was written. Raises pydantic's ValidationError with all mistakes.
    """

    search: SearchSection
    sampler: SamplerSection = SamplerSection()
    scheduler: SchedulerSection
    resources: ResourcesSection = ResourcesSection()
    tracking: TrackingSection = TrackingSection()
    select_backbones: SelectSection | None = Field(
        None,
        description="Judge the backbones of `vary.model.name` before the search and keep the best; without it all are.",
    )
    ssl: SslSection | None = Field(None, description="Self-supervised pre-training before the search.")
    meta: MetaSection | None = Field(None, description="Meta-training for few images before the search.")
    baselines: list[Literal["linear_probe", "stage_probes", "scratch", "bit_hyperrule", "source_only"]] = Field(
        [],
        description="What the trials are compared with: a probe of the frozen features, probes of every stage, the same "
        "network from random weights at the same budget, BiT-HyperRule (Kolesnikov et al. 2020), which sees 256,000 "
        "images where there are fewer than 20,000, and the same network trained on the source domains alone.",
    )
    probes: list[Literal["logreg", "linear_svm", "ridge", "knn"]] = Field(
        ["logreg"],
        min_length=1,
        description="Classifiers of `baselines: [stage_probes]` on the features of every stage, standardised.",
    )
    soup: int = Field(
        5,
        ge=0,
        le=20,
        description="Best trials of one backbone that are averaged greedily into one more candidate, kept only where it beats "
        "the best of them (Wortsman et al. 2022); below 2 none is made.",
    )
    promote: PromoteSection = PromoteSection()
    refresh: RefreshSection = RefreshSection()
    base: dict[str, Any] = Field({}, description="Fixed values of TrialConfig, in sections or by dotted path.")
    vary: dict[str, Any] = Field({}, description="Searched values by dotted path; forms in search/space/dimension.py.")
    try_first: list[dict[str, Any]] = Field([], description="Recipes evaluated before the sampler is asked.")

    @field_validator("base")
    @classmethod
    def _by_dotted_path(cls, base: dict[str, Any]) -> dict[str, Any]:
        return flatten(base)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        steps = (self._base_problems, self._dimension_problems, self._bound_problems, self._recipe_problems)
        for step in (*steps, self._selection_problems, self._step_problems, self._domain_problems):
            problems = step()
            if problems:
                raise ValueError("\n".join(problems))
        return self

    @cached_property
    def space(self) -> Space:
        """The searched values."""
        fixed = defaults() | self.base
        dimensions = {path: parse_dimension(raw, where=f"vary.{path}") for path, raw in self.vary.items()}
        return make_space({path: _with_fixed(path, one, fixed, dimensions) for path, one in dimensions.items()})

    def with_choices(self, path: str, members: list[Value]) -> "SearchSpec":
        """The search with fewer members of a choice; what is searched only with the others, and recipes of them, go too."""
        vary = {path: self.vary[path] | {"choice": members}}
        for other, raw in self.vary.items():
            when = raw.get("when", {})
            if other == path:
                continue
            if path not in when:
                vary[other] = raw
                continue
            wanted = when[path] if isinstance(when[path], list) else [when[path]]
            left = [value for value in wanted if value in members]
            if left:
                vary[other] = raw | {"when": when | {path: left}}
        while orphans := [
            one for one, raw in vary.items() if any(o in self.vary and o not in vary for o in raw.get("when", {}))
        ]:
            vary = {one: raw for one, raw in vary.items() if one not in orphans}
        recipes = [recipe for recipe in self.try_first if recipe.get(path, members[0]) in members]
        offered = [self.base.get("model.weights"), *vary.get("model.weights", {}).get("choice", [])]
        unused: dict[str, Any] = {step: None for step in STEPS if step not in offered}
        return SearchSpec.model_validate(self.model_dump() | unused | {"vary": vary, "try_first": recipes})

    def step_folder(self, step: str) -> Path:
        """Where a pre-training of this search keeps its states and the weights it ends with."""
        return Path(self.search.folder) / self.search.name / step

    def step_backbones(self, step: str) -> set[str]:
        """The backbones that may begin with a step's weights."""
        fixed = str((defaults() | self.base)["model.name"])
        if self.base.get("model.weights") == step:
            points = list(corners(self.space, of=1)) or [{}]
        else:
            points = [
                point for of in (1, 2) for point in corners(self.space, of=of) if point.get("model.weights") == step
            ]
        if "model.name" not in self.space.dimensions:
            return {fixed}
        return {str(point["model.name"]) for point in points if "model.name" in point}

    @property
    def model_name(self) -> str:
        """Under which name the best model is registered."""
        return self.promote.model or self.tracking.experiment or self.search.name

    def refit_config(self, params: Mapping[str, Value], *, seed: int) -> dict[str, Any]:
        """:meth:`trial_config` with another seed than the search's."""
        return nest(self._flat_config(params) | {"seed": seed})

    def trial_config(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """The nested configuration of a trial with these values: what TrialConfig takes."""
        return nest(self._flat_config(params))

    def validated(self, params: Mapping[str, Value]) -> TrialConfig:
        """The configuration of a trial with these values."""
        return TrialConfig.model_validate(self.trial_config(params), strict=True)

    def identity(self) -> dict[str, Any]:
        """What makes it this search, by dotted path, defaults filled in: plain data for JSON.

        Left out is what may change when a search is resumed: trials, budget, name, folder, storage, max_failures,
        resources, tracking, choose_by, baselines, probes, soup, promote, refresh, and of the base what has no effect on results
        (data.cache, data.workers) and where the images lie: the ledger knows them by content.
        """
        own = {f"search.{name}": getattr(self.search, name) for name in ("metric", "seed")}
        for name in ("sampler", "scheduler"):
            own |= {f"{name}.{key}": value for key, value in getattr(self, name).model_dump().items()}
        is_one_set = self.base.get("data.path") or self.base.get("data.format") == "elpv"
        places = {"data.path"} if is_one_set else {"data.path", "data.source", "data.target"}
        settled = NO_EFFECT_ON_RESULTS | SET_BY_SEARCH.keys() | places
        fixed = {f"base.{path}": value for path, value in (defaults() | self.base).items() if path not in settled}
        searched = {f"vary.{path}": dimension for path, dimension in self.space.plain().items()}
        recipes = [dict(sorted(recipe.items())) for recipe in self.try_first]
        chosen = {} if self.select_backbones is None else {"select_backbones": self.select_backbones.model_dump()}
        for step in STEPS:
            settings = getattr(self, step)
            chosen |= {} if settings is None else {step: settings.model_dump()}
        identity: dict[str, Any] = _canonical(own | chosen | fixed | searched | {"try_first": recipes})
        return identity

    def content_hash(self) -> str:
        """Hex digest of the identity: equal for equal searches, however they are written."""
        return hashlib.sha256(json.dumps(self.identity()).encode()).hexdigest()[:16]

    def _flat_config(self, params: Mapping[str, Value]) -> dict[str, Value]:
        of_search: dict[str, Value] = {
            "seed": self.search.seed,
            "train.epochs": self.scheduler.max_epochs,
            "train.metric": self.search.metric,
        }
        flat = {**self.base, **params, **of_search}
        if flat.get("model.weights") in STEPS:
            flat["model.weights"] = str(self.step_folder(str(flat["model.weights"])) / BACKBONE)
        return flat

    def _step_problems(self) -> list[str]:
        dimension = self.space.dimensions.get("model.weights")
        offered = [self.base.get("model.weights"), *(dimension.extremes if dimension is not None else ())]
        problems = []
        for step in STEPS:
            is_there, is_used = getattr(self, step) is not None, step in offered
            if is_used and not is_there:
                problems.append(f"{step}: missing, model.weights: {step} needs it")
            if is_there and not is_used:
                problems.append(f"{step}: nothing begins with its weights; add {step} to the choices of model.weights")
            if is_there and is_used and len(self.step_backbones(step)) > 1:
                names = ", ".join(sorted(self.step_backbones(step)))
                problems.append(
                    f"{step}: trains one backbone, model.weights: {step} is searched with {names}; add a `when:`"
                )
        return problems

    def _domain_problems(self) -> list[str]:
        target, oracle = self.base.get("data.target"), self.base.get("data.oracle")
        problems = []
        if target is None and "source_only" in self.baselines:
            problems.append("baselines: source_only needs base.data.target, the domain to adapt to")
        for metric in self.search.choose_by:
            if target is None and not metric.startswith("val/"):
                problems.append(f"search.choose_by: {metric!r} needs base.data.target")
            elif metric.startswith("oracle/") and not oracle:
                problems.append(
                    f"search.choose_by: {metric!r} reads the target's labels; base.data.oracle: true allows that and marks "
                    "every result"
                )
        return problems

    def _base_problems(self) -> list[str]:
        refused = [f"base.{path}: {problem}" for path in self.base if (problem := problem_of_path(path))]
        return refused or [_said_by_search(line) for line in config_problems(self._flat_config({}))]

    def _dimension_problems(self) -> list[str]:
        problems = []
        for path, raw in self.vary.items():
            twice = path in self.base and not (isinstance(raw, dict) and raw.get("when"))
            fixed = path in FIXED_IN_SEARCH
            problem = problem_of_path(path) or (
                "is the same for the whole search; give it in base"
                if fixed
                else "is also in base; give it once, or search it `when:`"
                if twice
                else None
            )
            if problem:
                problems.append(f"vary.{path}: {problem}")
                continue
            try:
                parse_dimension(raw, where=f"vary.{path}")
            except UserError as error:
                problems.append(str(error))
        return problems

    def _bound_problems(self) -> list[str]:
        try:
            self.space.dimensions  # noqa: B018
        except UserError as error:
            return [str(error)]
        return self._corner_problems(of=1) or self._corner_problems(of=2)

    def _corner_problems(self, *, of: int) -> list[str]:
        """What TrialConfig says against combinations of extreme values, each line once."""
        points = corners(self.space, of=of)
        found = (line for point in points for line in config_problems(self._flat_config(point)))
        hint = "" if of == 1 else "; search one of them only where the other allows it (`when:`)"
        return list(dict.fromkeys(f"vary.{line}{hint}" for line in found))

    def _selection_problems(self) -> list[str]:
        if self.select_backbones is None or isinstance(self.space.dimensions.get("model.name"), Choice):
            return []
        return ["select_backbones: nothing to select from; give model.name as a choice in vary"]

    def _recipe_problems(self) -> list[str]:
        recipes = enumerate(self.try_first)
        return [f"try_first.{index}.{line}" for index, recipe in recipes for line in self.space.problems(recipe)]


def difference(old: SearchSpec, new: SearchSpec) -> list[str]:
    """One line for each path of the identity that is not the same in both: ``path: old -> new``."""
    return differing(old.identity(), new.identity())


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The same of two identities."""
    paths = [path for path in sorted({*before, *after}) if before.get(path, ...) != after.get(path, ...)]
    return [f"{path}: {_shown_or_absent(before, path)} -> {_shown_or_absent(after, path)}" for path in paths]


def _said_by_search(line: str) -> str:
    """A line about a path of the base, or about what the search sets."""
    path, _, rest = line.partition(":")
    return f"{SET_BY_SEARCH[path]}:{rest}" if path in SET_BY_SEARCH else f"base.{line}"


def _with_fixed(path: str, dimension: Dimension, fixed: Mapping[str, Value], varied: Mapping[str, Any]) -> Dimension:
    """The dimension with only those conditions that are on searched values. Raises UserError for one that never holds."""
    when = {}
    for owner, values in dimension.when.items():
        where = f"vary.{path}.when.{owner}"
        problem = problem_of_path(owner)
        if problem:
            raise UserError(f"{where}: {problem}")
        if owner in varied:
            when[owner] = values
        elif fixed[owner] not in values:
            raise UserError(f"{where}: can never hold, {owner} is {shown(fixed[owner])} and not varied")
    return replace(dimension, when=when)


def _canonical(value: Any) -> Any:
    """Plain data with sorted keys, where 1.0 is written as 1: equal data have equal JSON."""
    if isinstance(value, Mapping):
        return {key: _canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown_or_absent(identity: Mapping[str, Any], path: str) -> str:
    return shown(identity[path]) if path in identity else "absent"


def resume_command(spec: SearchSpec, *, command: str = "resume") -> str:
    """What to type to go on with the search."""
    folder = "" if spec.search.folder == "searches" else f" --folder {shlex.quote(spec.search.folder)}"
    return f"python -m search {command} {spec.search.name}{folder}"
