"""Names what can have no effect, before anything runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from search.space.dimension import Choice
from search.space.final import finish_steps, num_turned
from search.space.offered import offered
from search.space.paths import defaults
from search.space.sections import SearchSection
from search.space.space import corners
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.techniques import ALIGNING_METHODS, CHOICES, HEADS, LIGHT_ADAPTERS
from trainable.config.trial import used_batch_size
from trainable.config.validation import as_text

# Strategies whose norm layers rest where freeze.depth freezes something, if anywhere; others freeze without it.
FREEZE_BY_DEPTH_ALONE = ("partial", "full", "scratch", "two_stage", "norm_only")
STAGES_OF_A_BACKBONE = {"stem", "stage1", "stage2", "stage3", "stage4"}


def lint(spec: SearchSpec) -> list[str]:
    """One line for each setting that can change nothing, by dotted path; empty for a file that is all to the point."""
    return [line for rule in RULES for line in rule(spec)]


def lowered_batches(spec: SearchSpec, *, num_images: int) -> list[str]:
    """One line for each batch size that ``train.min_updates`` lowers for so many training images."""
    points: list[dict[str, Value]] = [{}, *corners(spec.space, of=1), *corners(spec.space, of=2)]
    lines = {}
    for train in (spec.validated(point).train for point in points):
        used = used_batch_size(train, num_images=num_images)
        if used < train.batch_size:
            wanted = f"for train.min_updates: {train.min_updates} in {num_images} images"
            lines[train.batch_size, used] = f"train.batch_size: {train.batch_size} is lowered to {used}, {wanted}"
    return list(lines.values())


@dataclass(frozen=True, kw_only=True)
class Need:
    """``path`` has an effect only where ``other`` has a value that ``serves``.

    ``ask_condition`` is for a path that ought to be searched under that condition alone where ``other`` is varied.
    """

    path: str
    other: str
    serves: Callable[[Value], bool]
    because: str
    ask_condition: bool = False


def _leaves_some_trainable(depth: Value) -> bool:
    return depth not in (1, "stage4", [])


def _freezes_some(depth: Value) -> bool:
    return depth != 0 and not (isinstance(depth, list) and set(depth) == STAGES_OF_A_BACKBONE)


def _reads_columns(data_format: Value) -> bool:
    return data_format in ("auto", "manifest", "table")


def _is_positive(value: Value) -> bool:
    return isinstance(value, int | float) and value > 0


def _is_one_of(wanted: tuple[Value, ...], value: Value) -> bool:
    return value in wanted


COLUMNS = ("image_column", "label_column", "split_column", "group_column", "domain_column")
BECAUSE = {  # where another reason says more than that the choice is not one that reads the path
    "freeze.depth": "finetune.strategy decides what is frozen",
    "finetune.l2_sp": "there are no pretrained weights to hold to",
    "optimizer.nesterov": "optimizer.name has no such momentum",
}
ASK_NO_CONDITION = (
    "optimizer.layer_decay",
    "optimizer.backbone_multiplier",
    "finetune.l2_sp",
    "optimizer.nesterov",
)


def _needs_of_techniques() -> Iterator[Need]:
    """One need for each path that only some values of a choice read, from the tables of techniques."""
    for choice, techniques in CHOICES.items():
        if choice == "augment.auto":  # without it augment.strength names the policy
            continue
        for path in dict.fromkeys(key for technique in techniques.values() for key in technique.keys):
            readers = tuple(name for name, technique in techniques.items() if path in technique.keys)
            others = [name for name in techniques if name not in readers]
            if others:
                is_not = f"is {others[0]}" if len(others) == 1 < len(readers) else f"is not {' or '.join(readers)}"
                yield Need(
                    path=path,
                    other=choice,
                    serves=partial(_is_one_of, readers),
                    because=BECAUSE.get(path, f"{choice} {is_not}"),
                    ask_condition=path not in ASK_NO_CONDITION,
                )


CHOICES_OF_TEXT = HEADS["text"].keys  # which the baseline zero_shot reads, too
NEEDS = (
    *_needs_of_techniques(),
    Need(
        path="optimizer.layer_decay",
        other="freeze.depth",
        serves=_leaves_some_trainable,
        because="the whole backbone is frozen",
    ),
    Need(
        path="optimizer.backbone_multiplier",
        other="freeze.depth",
        serves=_leaves_some_trainable,
        because="the whole backbone is frozen",
    ),
    Need(
        path="data.early_epochs",
        other="data.early_size",
        serves=lambda value: value is not None,
        because="data.early_size is not set",
    ),
    Need(
        path="data.rehearsal_share",
        other="data.rehearsal",
        serves=lambda value: value is not None,
        because="data.rehearsal is not set",
    ),
    *(
        Need(path=f"distill.{name}", other="distill.teachers", serves=bool, because="distill.teachers names none")
        for name in ("weight", "temperature")
    ),
    Need(
        path="distill.unlabelled_share",
        other="distill.unlabelled",
        serves=lambda value: value is not None,
        because="distill.unlabelled is not set",
    ),
    Need(path="train.ema_start", other="train.ema", serves=_is_positive, because="train.ema is 0"),
    Need(
        path="train.min_delta",
        other="train.patience",
        serves=lambda value: value is not None,
        because="train.patience is not set",
    ),
    Need(
        path="augment.mix_until",
        other="augment.mix_probability",
        serves=_is_positive,
        because="augment.mix_probability is 0",
    ),
    *(
        Need(
            path=f"augment.{name}",
            other="data.channels",
            serves=partial(_is_one_of, (1, 3)),
            because="data.channels is neither 1 nor 3",
        )
        for name in ("auto", "auto_ops", "auto_magnitude")
    ),
    Need(
        path="lr_schedule.warmup_start",
        other="lr_schedule.warmup_epochs",
        serves=_is_positive,
        because="lr_schedule.warmup_epochs is 0",
    ),
    Need(
        path="data.elpv_rule",
        other="data.format",
        serves=lambda value: value == "elpv",
        because="data.format is not elpv",
    ),
    Need(path="data.path", other="data.format", serves=lambda value: value != "elpv", because="data.format is elpv"),
    *(
        Need(path=f"data.{name}", other="data.format", serves=_reads_columns, because="data.format has no columns")
        for name in COLUMNS
    ),
)


def _unmet_needs(spec: SearchSpec) -> Iterator[str]:
    for need in NEEDS:
        if need.path not in spec.vary and spec.base.get(need.path) in (None, defaults()[need.path]):
            continue
        if need.path in CHOICES_OF_TEXT and "zero_shot" in spec.baselines:
            continue
        values = offered(spec, need.other, given=need.path)
        serving = [value for value in values if need.serves(value)]
        where = f"{'vary' if need.path in spec.vary else 'base'}.{need.path}"
        if not serving:
            yield f"{where}: has no effect, {need.because}"
        elif need.ask_condition and len(serving) < len(values) and need.path in spec.vary:
            wanted = as_text(serving[0]).strip("'") if len(serving) == 1 else _listed(serving)
            yield f"{where}: has no effect where {need.because}; add when: {{{need.other}: {wanted}}}"


def _norms_of_nothing_frozen(spec: SearchSpec) -> Iterator[str]:
    path = "freeze.bn"
    if path not in spec.vary and spec.base.get(path, defaults()[path]) == defaults()[path]:
        return
    freezes = any(_freezes_some(depth) for depth in offered(spec, "freeze.depth", path))
    if not freezes and set(offered(spec, "finetune.strategy", path)) <= set(FREEZE_BY_DEPTH_ALONE):
        yield f"{_place(spec, path)}: has no effect, nothing is frozen"


def _aligning_frozen_features(spec: SearchSpec) -> Iterator[str]:
    path = "adapt.method"
    aligning = [value for value in offered(spec, path, path) if value in (*ALIGNING_METHODS, "dsbn")]
    if aligning and not any(_leaves_some_trainable(depth) for depth in offered(spec, "freeze.depth", path)):
        methods = " and ".join(map(str, aligning))
        yield f"{_place(spec, path)}: {methods} have nothing to move, the whole backbone is frozen"


def _own_norms_that_rest(spec: SearchSpec) -> Iterator[str]:
    path = "adapt.method"
    adapts_layers_alone = set(offered(spec, "finetune.strategy", path)) <= set(LIGHT_ADAPTERS)
    moves_norms = "norms" in offered(spec, "finetune.beside", path) or set(offered(spec, "freeze.bn", path)) != {"eval"}
    if "dsbn" in offered(spec, path, path) and adapts_layers_alone and not moves_norms:
        yield f"{_place(spec, path)}: dsbn has nothing to move, norm layers rest beside adapters; set finetune.beside: norms"


def _mixing_of_nothing(spec: SearchSpec) -> Iterator[str]:
    path = "augment.mix_probability"
    if path not in spec.vary and spec.base.get(path, 1) == 1:
        return
    if not any(_is_positive(value) for name in ("mixup", "cutmix") for value in offered(spec, f"augment.{name}", path)):
        yield f"{_place(spec, path)}: has no effect, augment.mixup and augment.cutmix are 0"


def _mixing_never_used(spec: SearchSpec) -> Iterator[str]:
    for path in ("augment.mixup", "augment.cutmix"):
        used = any(_is_positive(value) for value in offered(spec, "augment.mix_probability", path))
        if not used and any(_is_positive(value) for value in offered(spec, path, path)):
            yield f"{_place(spec, path)}: has no effect, augment.mix_probability is 0"


def _epochs_of_solved_heads(spec: SearchSpec) -> Iterator[str]:
    if spec.scheduler.max_epochs > 1 and "gradient" not in offered(spec, "finetune.solver", "scheduler.max_epochs"):
        yield f"scheduler.max_epochs: {spec.scheduler.max_epochs} has no effect beyond 1, finetune.solver solves in one epoch"


def _single_choices(spec: SearchSpec) -> Iterator[str]:
    for path, dimension in spec.space.dimensions.items():
        if isinstance(dimension, Choice) and len(dimension.members) == 1:
            yield f"vary.{path}: has the single value {as_text(dimension.members[0])}; give it in base"


def _judged_inside_warmup(spec: SearchSpec) -> Iterator[str]:
    path, first = "lr_schedule.warmup_epochs", spec.scheduler.min_epochs
    longest = max(value for value in offered(spec, path, path) if isinstance(value, int | float))
    if spec.scheduler.name != "none" and longest > first:
        yield f"{_place(spec, path)}: {as_text(longest)} is longer than scheduler.min_epochs: {first}, where trials are judged"


def _patience_too_long(spec: SearchSpec) -> Iterator[str]:
    path = "train.patience"
    shortest = min((value for value in offered(spec, path, path) if isinstance(value, int)), default=0)
    if shortest >= spec.scheduler.max_epochs:
        yield f"{_place(spec, path)}: has no effect, {shortest} is not below scheduler.max_epochs: {spec.scheduler.max_epochs}"


def _finish(spec: SearchSpec) -> Iterator[str]:
    """What is asked of the final candidate to no purpose, or beside a limit that was measured without it."""
    steps = finish_steps(spec)
    left_out = [step for step in spec.finish if step not in steps] if "finish" in spec.model_fields_set else []
    if left_out and spec.base.get("data.target") is not None:
        yield f"finish: {', '.join(left_out)} has no effect with data.target, whose images are of another domain"
    elif left_out:
        yield f"finish: class_weights has no effect, no weights of classes serve search.metric: {spec.search.metric}"
    judged = f"val/{spec.promote.metric}"
    if "class_weights" in steps and spec.search.metric != judged:
        yield f"finish: class_weights serve search.metric: {spec.search.metric}, a promotion goes by promote.metric: {judged[4:]}"
    if "interpolation" in steps and not _trains_pretrained(spec):
        yield "finish: interpolation has no effect, no trial trains a backbone that was trained before"
    if "views" not in steps:
        return
    if not num_turned(spec):
        yield "finish: views has no effect, augment.flip and augment.rotate allow no other view of an image"
    elif "usage/latency_ms" in spec.search.constraints:
        yield (
            f"finish: views may take {1 + num_turned(spec)} times as long as search.constraints' usage/latency_ms, which is "
            "measured without them"
        )


def _trains_pretrained(spec: SearchSpec) -> bool:
    strategies = set(offered(spec, "finetune.strategy", "finish")) - {"linear_probe", "scratch"}
    trains = any(_leaves_some_trainable(depth) for depth in offered(spec, "freeze.depth", "finish"))
    return bool(strategies) and trains and set(offered(spec, "model.weights", "finish")) != {"random"}


def _nothing_to_halve(spec: SearchSpec) -> Iterator[str]:
    if spec.scheduler.name != "none" and len(spec.scheduler.rungs) == 1:
        yield f"scheduler.min_epochs: equals max_epochs ({spec.scheduler.max_epochs}), so no trial is ever stopped early"


def _ignored_by_the_scheduler(spec: SearchSpec) -> Iterator[str]:
    scheduler = spec.scheduler
    if scheduler.mode != "promote" and scheduler.name != "asha":
        yield f"scheduler.mode: {scheduler.mode} has no effect, scheduler.name is {scheduler.name}, not asha"
    if scheduler.audit and scheduler.name == "none":
        yield f"scheduler.audit: {scheduler.audit} has no effect, scheduler.name: none stops no trial"
    if scheduler.cost != "seconds" and scheduler.name != "freeze_thaw":
        yield f"scheduler.cost: {scheduler.cost} has no effect, scheduler.name is {scheduler.name}, not freeze_thaw"


def _too_few_to_confirm(spec: SearchSpec) -> Iterator[str]:
    confirm, finalists, trials = spec.search.confirm, spec.scheduler.finalists, spec.search.trials
    if confirm > finalists and spec.scheduler.name != "none":
        yield (
            f"search.confirm: {confirm} is above scheduler.finalists: {finalists}; only trials trained to the end are confirmed, "
            "and there may be no more of them"
        )
    if trials is not None and confirm > trials:
        yield f"search.confirm: {confirm} is above search.trials: {trials}"
    if confirm and "soup" in spec.model_fields_set and spec.soup >= 2:
        yield f"soup: {spec.soup} has no effect, no soup is made with search.confirm: {confirm}"


def _too_few_for_the_top(spec: SearchSpec) -> Iterator[str]:
    """Each rung promotes one in ``reduction``, so the last needs ``reduction`` to the power of the rungs before it."""
    needed = spec.scheduler.reduction ** (len(spec.scheduler.rungs) - 1)
    trials = spec.search.trials
    if spec.scheduler.name == "asha" and spec.scheduler.mode == "promote" and trials is not None and trials < needed:
        yield (
            f"search.trials: {trials} are too few for one to be promoted to epoch "
            f"{spec.scheduler.max_epochs}, which takes {needed}; only the finalists are trained to the end"
        )


def _model_never_asked(spec: SearchSpec) -> Iterator[str]:
    startup, trials = spec.sampler.startup, spec.search.trials
    if spec.sampler.name != "random" and startup is not None and trials is not None and startup >= trials:
        yield f"sampler.startup: {startup} is not below search.trials: {trials}; {spec.sampler.name} is never asked"


def _warm_start_not_asked(spec: SearchSpec) -> Iterator[str]:
    if spec.search.warm_start is None and spec.search.num_warm != SearchSection.model_fields["num_warm"].default:
        yield f"search.num_warm: {spec.search.num_warm} has no effect without search.warm_start"


def _choosing_takes_all(spec: SearchSpec) -> Iterator[str]:
    asked = None if spec.select_backbones is None else spec.select_backbones.minutes
    seconds = spec.search.budget.seconds
    if asked is not None and seconds is not None and 60 * asked >= seconds:
        yield f"select_backbones.minutes: {asked:g} leaves nothing of search.budget: {seconds / 60:g} minutes"


def _nothing_varies(spec: SearchSpec) -> Iterator[str]:
    trials = spec.search.trials
    if not spec.vary and trials != 1:
        whose = "all trials" if trials is None else f"all of search.trials: {trials}"
        yield f"vary: nothing is searched, so {whose} are the same trial"


RULES: tuple[Callable[[SearchSpec], Iterator[str]], ...] = (
    _unmet_needs,
    _norms_of_nothing_frozen,
    _aligning_frozen_features,
    _own_norms_that_rest,
    _mixing_of_nothing,
    _mixing_never_used,
    _epochs_of_solved_heads,
    _single_choices,
    _judged_inside_warmup,
    _patience_too_long,
    _nothing_to_halve,
    _finish,
    _ignored_by_the_scheduler,
    _too_few_to_confirm,
    _too_few_for_the_top,
    _model_never_asked,
    _warm_start_not_asked,
    _choosing_takes_all,
    _nothing_varies,
)


def _place(spec: SearchSpec, path: str) -> str:
    return f"{'vary' if path in spec.vary else 'base'}.{path}"


def _listed(values: list[Value]) -> str:
    return f"[{', '.join(as_text(value).strip(chr(39)) for value in values)}]"
