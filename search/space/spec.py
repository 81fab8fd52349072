"""One search said completely: every field with its unit, range and effect."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from search.space.before import MetaSection, SelectSection, SslSection
from search.space.dimension import Choice, Dimension, parse_dimension, without_prior
from search.space.identity import canonical, identity_difference
from search.space.paths import FIXED_IN_SEARCH, SET_BY_SEARCH, config_problems, defaults, flatten, nest, problem_of_path
from search.space.promotion_sections import PromoteSection, RefreshSection
from search.space.sections import (
    STEPS,
    ResourcesSection,
    SamplerSection,
    SchedulerSection,
    SearchSection,
    Section,
    TrackingSection,
)
from search.space.space import Space, corners, make_space
from search.space.values import Value
from trainable.config.trial import TrialConfig
from trainable.config.validation import as_text
from trainable.errors import UserError
from trainable.home import expand_home

ORACLE = "ORACLE: the target's labels were read in this search; none of its results is an honest estimate"

BACKBONE = "backbone.safetensors"
NO_EFFECT_ON_RESULTS = frozenset({"data.cache", "data.workers"})


class HasParams(Protocol):
    """A trial, as far as its configuration goes."""

    @property
    def params(self) -> Mapping[str, Value]:
        """Searched values by dotted path."""

    @property
    def overrides(self) -> Mapping[str, Value]:
        """Values in place of these and the search's, by dotted path."""


Baseline = Literal["linear_probe", "stage_probes", "zero_shot", "scratch", "bit_hyperrule", "source_only"]

FinishStep = Literal["interpolation", "views", "calibration", "class_weights"]


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
    baselines: list[Baseline] = Field(
        [],
        description="What the trials are compared with: a probe of the frozen features, probes of every stage, the class "
        "names as text beside a backbone with a text tower (`model.head: text` as it begins), the same network from random "
        "weights at the same budget, BiT-HyperRule (Kolesnikov et al. 2020), which sees 256,000 images where there are fewer "
        "than 20,000, and the same network trained on the source domains alone. The linear probe, of `stage_probes` too, and "
        "zero-shot are the first trials; a stage's probe that beats every trial is one more.",
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
    finish: list[FinishStep] = Field(
        ["calibration"],
        description="What the final candidate is given before it is tested, and each model that is packaged, where it lowers "
        "the cross-entropy of validation images: `interpolation` brings the weights nearer to those that training began with "
        "(Wortsman et al. 2022); `views` averages over the flips and turns that `augment` allows, each of which takes as long as "
        "the image itself; `calibration` fits a temperature and the weight of the classes' shares to these images, for "
        "`val/balanced_accuracy` with classes weighed alike; `class_weights` multiplies each class's probability by a weight, "
        "kept where that raises accuracy, balanced accuracy or macro F1, whichever is `search.metric`, by more than its standard "
        "error: for `val/macro_f1` above all, which the likeliest class does not serve best, at the price of probabilities that "
        "are right for it alone. With `data.target` a temperature alone is fitted, to images of the source: how sure the "
        "network may be of the target nobody knows without labels.",
    )
    promote: PromoteSection = PromoteSection()
    refresh: RefreshSection = RefreshSection()
    base: dict[str, Any] = Field({}, description="Fixed values of TrialConfig, in sections or by dotted path.")
    vary: dict[str, Any] = Field({}, description="Searched values by dotted path; forms in search/space/dimension.py.")
    try_first: list[dict[str, Any]] = Field([], description="Recipes evaluated before the sampler is asked.")

    @field_validator("base")
    @classmethod
    def _by_dotted_path(cls, base: dict[str, Any]) -> dict[str, Any]:
        return {path: _at_home(value) for path, value in flatten(base).items()}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        steps = (self._base_problems, self._dimension_problems, self._bound_problems, self._recipe_problems)
        for step in (
            self._budget_problems,
            self._place_problems,
            *steps,
            self._selection_problems,
            self._step_problems,
            self._domain_problems,
        ):
            problems = step()
            if problems:
                raise ValueError("\n".join(problems))
        return self

    @cached_property
    def space(self) -> Space:
        """The searched values."""
        fixed = defaults() | self.base
        dimensions = {path: parse_dimension(raw, where=f"vary.{path}") for path, raw in self.vary.items()}
        return make_space(
            {path: _with_fixed(path, dimension, fixed, dimensions) for path, dimension in dimensions.items()}
        )

    @property
    def depths(self) -> list[Value]:
        """The values of ``freeze.depth`` that trials may have, where they can be counted."""
        dimension = self.space.dimensions.get("freeze.depth")
        if dimension is None:
            return [(defaults() | self.base)["freeze.depth"]]
        return list(dimension.members) if isinstance(dimension, Choice) else []

    def with_choices(self, path: str, members: list[Value]) -> "SearchSpec":
        """The search with fewer members of a choice; what is searched only with the others, and recipes of them, go too."""
        vary = {path: _with_members(self.vary[path], members)}
        for name, raw in self.vary.items():
            when = raw.get("when", {})
            if name == path:
                continue
            if path not in when:
                vary[name] = raw
                continue
            wanted = when[path] if isinstance(when[path], list) else [when[path]]
            left = [value for value in wanted if value in members]
            if left:
                vary[name] = raw | {"when": when | {path: left}}
        while orphans := [
            name for name, raw in vary.items() if any(o in self.vary and o not in vary for o in raw.get("when", {}))
        ]:
            vary = {name: raw for name, raw in vary.items() if name not in orphans}
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

    def config_of(self, trial: HasParams) -> dict[str, Any]:
        """The nested configuration of a recorded trial."""
        return self.trial_config({**trial.params, **trial.overrides})

    def validated(self, params: Mapping[str, Value]) -> TrialConfig:
        """The configuration of a trial with these values."""
        return TrialConfig.model_validate(self.trial_config(params), strict=True)

    def identity(self) -> dict[str, Any]:
        """What makes it this search, by dotted path, defaults filled in: plain data for JSON.

        Left out is what may change when a search is resumed: trials, budget, name, folder, storage, max_failures, max_losses,
        epoch_limit_minutes,
        resources, tracking, choose_by, confirm, tolerance, baselines, probes, soup, finish, promote, refresh, priors, and of the
        base what has no effect on results (data.cache, data.workers) and where the images lie: the ledger knows them by content.
        """
        values = {f"search.{name}": getattr(self.search, name) for name in ("metric", "seed")}
        values |= {"search.constraints": self.search.constraints} if self.search.constraints else {}
        for name in ("sampler", "scheduler"):
            values |= {f"{name}.{key}": value for key, value in getattr(self, name).model_dump().items()}
        is_one_set = self.base.get("data.path") or self.base.get("data.format") == "elpv"
        places = {"data.path", "data.images"} | (set() if is_one_set else {"data.source", "data.target"})
        settled = NO_EFFECT_ON_RESULTS | SET_BY_SEARCH.keys() | places
        fixed = {f"base.{path}": value for path, value in (defaults() | self.base).items() if path not in settled}
        searched = {f"vary.{path}": without_prior(dimension) for path, dimension in self.space.plain().items()}
        recipes = [dict(sorted(recipe.items())) for recipe in self.try_first]
        chosen = {} if self.select_backbones is None else {"select_backbones": self.select_backbones.model_dump()}
        for step in STEPS:
            settings = getattr(self, step)
            chosen |= {} if settings is None else {step: settings.model_dump()}
        identity: dict[str, Any] = canonical(values | chosen | fixed | searched | {"try_first": recipes})
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

    def _budget_problems(self) -> list[str]:
        budget = self.search.budget
        if self.search.trials is None and not budget.is_bounded:
            return [
                "search.trials: missing; give how many are begun, or a search.budget of minutes, hours, gpu_hours or epochs"
            ]
        if budget.minutes is not None and budget.hours is not None:
            return [
                f"search.budget: has minutes: {budget.minutes:g} as well as hours: {budget.hours:g}; give one of them"
            ]
        return []

    def _place_problems(self) -> list[str]:
        addresses = [urlsplit(address or "") for address in (self.search.storage, self.tracking.uri)]
        if not all(address.scheme.startswith("postgresql") for address in addresses):
            return []
        ledger, runs = ((each.hostname, each.port or 5432, each.path.strip("/")) for each in addresses)
        return ["search.storage: is the database of tracking.uri; each needs one of its own"] if ledger == runs else []

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
            space = self.space
        except UserError as error:
            return [str(error)]
        return self._corner_problems(space, of=1) or self._corner_problems(space, of=2)

    def _corner_problems(self, space: Space, *, of: int) -> list[str]:
        """What TrialConfig says against combinations of extreme values, each line once."""
        points = corners(space, of=of)
        problems = (line for point in points for line in config_problems(self._flat_config(point)))
        hint = "" if of == 1 else "; search one of them only where the other allows it (`when:`)"
        return list(dict.fromkeys(f"vary.{line}{hint}" for line in problems))

    def _selection_problems(self) -> list[str]:
        if self.select_backbones is None or isinstance(self.space.dimensions.get("model.name"), Choice):
            return []
        return ["select_backbones: nothing to select from; give model.name as a choice in vary"]

    def _recipe_problems(self) -> list[str]:
        recipes = enumerate(self.try_first)
        return [f"try_first.{index}.{line}" for index, recipe in recipes for line in self.space.problems(recipe)]


def difference(old: SearchSpec, new: SearchSpec) -> list[str]:
    """One line for each path of the identity that is not the same in both: ``path: old -> new``."""
    return identity_difference(old.identity(), new.identity())


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
            raise UserError(f"{where}: can never hold, {owner} is {as_text(fixed[owner])} and not varied")
    return replace(dimension, when=when)


def _with_members(raw: Mapping[str, Any], members: list[Value]) -> dict[str, Any]:
    """A choice with fewer members; a prior that is not among them is gone."""
    kept = dict(raw) if raw.get("prior", members[0]) in members else without_prior(raw)
    return kept | {"choice": members}


def _at_home(value: Any) -> Any:
    """A value, or every member of a list, with the user's home for `~`; what is no path does not begin so."""
    if isinstance(value, list):
        return [_at_home(member) for member in value]
    return expand_home(value) if isinstance(value, str) else value


def resume_command(spec: SearchSpec, *, command: str = "resume") -> str:
    """What to type to go on with the search."""
    folder = "" if spec.search.folder == "searches" else f" --folder {shlex.quote(spec.search.folder)}"
    return f"python -m search {command} {spec.search.name}{folder}"
