"""Looks, before a worker is asked for, at what only a backbone's layers or a user's own code can tell."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.space.offered import offered
from search.space.sections import STEPS
from search.space.space import corners
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.techniques import ALIGNING_METHODS, LIGHT_ADAPTERS, NORM_METHODS
from trainable.config.trial import ModelConfig, TrialConfig
from trainable.data.packaged import find_package
from trainable.errors import UserError
from trainable.loader.own_code import find_code

if TYPE_CHECKING:
    from trainable.model.weights_at_hand import WeightsAtHand

# Paths that decide how a backbone is built, and whether it can be.
BUILT_BY = (
    "model.name",
    "model.weights",
    "model.until",
    "model.pool",
    "model.pool_blocks",
    "model.drop_path",
    "model.head",
    "finetune.text_weights",
    "data.image_size",
    "finetune.strategy",
)
# Paths that decide what a technique finds in a backbone's layers.
LAID_OUT_BY = (
    "model.name",
    "model.until",
    "freeze.depth",
    "finetune.strategy",
    "finetune.schedule",
    "finetune.order",
    "finetune.every",
    "finetune.targets",
    "adapt.method",
    "adapt.layer",
)


def check_techniques(spec: SearchSpec) -> None:
    """Raise UserError for a technique that some backbone of the space leaves nothing to do, and as :func:`check_code` does and
    :func:`check_teachers`.

    Backbones are laid out without their weights, and only where the space has such a technique.
    """
    check_code(spec)
    check_teachers(spec)
    seen: set[str] = set()
    layouts: dict[str, Any] = {}
    for config in _layouts(spec):
        adapt = config.adapt
        key = repr(
            [config.model.name, config.model.until, config.freeze.depth, config.finetune, adapt.method, adapt.layer]
        )
        if _asks_the_layers(config) and key not in seen:
            seen.add(key)
            _check_layers(config, layouts=layouts)


def _layouts(spec: SearchSpec) -> Iterator[TrialConfig]:
    """A configuration for each two of the values that decide what is found in layers, with every backbone of the space."""
    paths = [path for path in LAID_OUT_BY if path in spec.space.dimensions]
    searched = {"model.name"}.intersection(paths)
    for of in range(3 + len(searched)):
        for point in corners(spec.space, of=of, among=paths):
            if searched & set(spec.space.active(point)) <= set(point):
                yield spec.validated(point)


def check_models(spec: SearchSpec) -> list[str]:
    """Raise UserError for a backbone of the space that cannot be built as some trial asks for it, told by shapes alone.

    That is an unknown name, weights that are not there or do not fit, an option that it does not take, a size of images that
    it cannot take. What a step before the search trains is not there yet. Gives a line for each file of weights, of whose
    head nothing is used.
    """
    from trainable.model.network import check_network

    _check_zero_shot(spec)
    seen: set[str] = set()
    files: dict[str, None] = {}
    for config in _models(spec):
        model, data = config.model, config.data
        asked = [model.name, model.weights, model.until, model.pool, model.pool_blocks, model.drop_path > 0]
        sizes = [data.image_size, data.early_size, data.channels]
        key = repr(
            [*asked, *sizes, config.finetune.strategy == "scratch", model.head == "text", config.finetune.text_weights]
        )
        if key not in seen:
            seen.add(key)
            check_network(config)
            if model.weights not in ("pretrained", "random") and not model.weights.startswith("package:"):
                files[model.weights] = None
    return [f"model.weights: the head in {file} is left out, if it has one; a new one is trained" for file in files]


def _check_zero_shot(spec: SearchSpec) -> None:
    """Raise UserError where `baselines` ask for zero-shot, and a backbone has no text tower or open_clip is missing."""
    if "zero_shot" not in spec.baselines:
        return
    from trainable.model.text_tower import check_text_tower

    for config in _models(spec):
        try:
            check_text_tower(config)
        except UserError as error:
            raise UserError(f"baselines: zero_shot has no class names to begin with; {error}") from error


def weights_of(spec: SearchSpec) -> "list[WeightsAtHand]":
    """Where the weights of every model lie that a trial, or a step before the search, may begin with; random ones left out.

    Nothing is downloaded. Of models that :func:`check_models` has passed.
    """
    from trainable.model.weights_at_hand import weights_at_hand

    models = [config.model for config in _models(spec) if config.finetune.strategy != "scratch"]
    asked = dict.fromkeys((model.name, model.weights) for model in models)
    places = [weights_at_hand(name, weights=weights) for name, weights in asked]
    return [place for place in places if place is not None]


def _models(spec: SearchSpec) -> Iterator[TrialConfig]:
    """A configuration for each combination of what decides how a backbone is built, and for the steps before the search."""
    paths = [path for path in BUILT_BY if path in spec.space.dimensions]
    for of in range(len(paths) + 1):
        for point in corners(spec.space, of=of, among=paths):
            if set(paths) & set(spec.space.active(point)) <= set(point):
                weights = str(point.get("model.weights", spec.base.get("model.weights")))
                config = spec.validated(point)
                yield _with(config, weights="random") if weights in STEPS else config
    for step in STEPS:
        settings = getattr(spec, step)
        for name in spec.step_backbones(step) if settings is not None else ():
            yield _with(spec.validated({}), name=name, weights=settings.weights, drop_path=0.0)


def _with(config: TrialConfig, **changes: Value) -> TrialConfig:
    model = ModelConfig.model_validate(config.model.model_dump() | changes)
    return config.model_copy(update={"model": model})


def check_code(spec: SearchSpec, *, look: Callable[[str], object] = find_code) -> None:
    """Raise UserError where a search has functions of a user's that are not allowed or not there, by ``look`` at each."""
    dimension = spec.space.dimensions.get("augment.custom")
    recipes = [recipe.get("augment.custom") for recipe in spec.try_first]
    lists = [spec.base.get("augment.custom"), *recipes, *(dimension.extremes if dimension is not None else ())]
    for path in dict.fromkeys(str(path) for paths in lists if isinstance(paths, list) for path in paths):
        look(path)


def check_teachers(spec: SearchSpec) -> None:
    """Raise UserError where a folder of ``distill.teachers`` holds no packaged model."""
    for teachers in offered(spec, "distill.teachers"):
        for teacher in teachers if isinstance(teachers, list) else ():
            find_package(Path(str(teacher)), field="distill.teachers")


def _asks_the_layers(config: TrialConfig) -> bool:
    adapt = config.adapt
    aligns_a_stage = adapt.method in ALIGNING_METHODS and adapt.layer != "pooled"
    return config.finetune.strategy in ("gradual", *LIGHT_ADAPTERS) or adapt.method in NORM_METHODS or aligns_a_stage


def _check_layers(config: TrialConfig, *, layouts: dict[str, Any]) -> None:
    from trainable.model.additions import ADDITIONS
    from trainable.model.backbone import input_spec, laid_out
    from trainable.model.cut import cut_at
    from trainable.model.network import aligned_stage
    from trainable.model.phase import thaw_epochs

    name, until = config.model.name, config.model.until
    key = f"{name} until {until}"
    if key not in layouts:
        backbone, plan = laid_out(name)
        layouts[key] = backbone, plan if until is None else cut_at(backbone, plan=plan, stage=until, name=name)
    backbone, plan = layouts[key]
    if config.finetune.strategy == "gradual":
        thaw_epochs(config, plan=plan)
    if config.finetune.strategy in LIGHT_ADAPTERS:
        spec = input_spec(config.model, image_size=None, channels=3)  # as it is laid out
        ADDITIONS[config.finetune.strategy].check(backbone, plan=plan, config=config, spec=spec)
    aligned_stage(config, backbone=backbone, plan=plan)
