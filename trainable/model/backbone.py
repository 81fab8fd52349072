"""The door to timm: a backbone by name, with its weights, its plan and what it expects as input."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import OutageError, UserError, nearest
from trainable.model.cut import cut_at, end_of
from trainable.model.layer_plan import LayerPlan, make_plan
from trainable.model.layers import show_pooled
from trainable.model.pool import POOLS, Pooled
from trainable.model.positions import Layout, layout_of
from trainable.model.weights import PACKAGE_ARCHITECTURES, load_weights
from trainable.terminal import plain

ENCODER = "_enc"  # what timm's architectures end in that have no classifier


def input_spec(config: ModelConfig, *, image_size: int | None, channels: int) -> InputSpec:
    """Size, normalisation, interpolation and crop as the backbone's own pretraining had them.

    For other channel counts than three the channel statistics are averaged (one) or repeated (more).
    """
    cfg = _data_config(config.name)
    return InputSpec(
        size=image_size or cfg["input_size"][-1],
        mean=_per_channel(cfg["mean"], channels=channels),
        std=_per_channel(cfg["std"], channels=channels),
        interpolation=cfg["interpolation"],
        crop_share=cfg["crop_pct"],
    )


@cache
def _data_config(name: str) -> dict[str, Any]:
    """How an architecture's images are prepared, by timm's keys; nobody changes it."""
    return cast(dict[str, Any], resolve_model_data_config(_on_meta(name)))


def create_backbone(
    config: ModelConfig, *, spec: InputSpec, generator_seed: int, flexible: bool = False, device: str = "cpu"
) -> tuple[nn.Module, LayerPlan]:
    """The backbone, N×C×S×S → N×F, and the plan of its layers; the classifier is removed, features are ``config.pool``'s.

    Where that has weights of its own, what it pools, N×L×C positions, is in the place of features.

    ``generator_seed`` decides random starts; one that is ``flexible`` takes other sizes than S as well, resampling its
    position embeddings as it goes. On ``device`` meta only shapes are made, those of a weights file too, and no hub is asked.
    Raises UserError for an unknown name, an option that the architecture does not take, or unusable weights, OutageError for a
    hub that does not answer.
    """
    _check_name(config.name)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.default_generator.manual_seed(generator_seed)
        backbone = _build(config, channels=len(spec.mean), flexible=flexible)
    heads = _remove_classifier(backbone)
    plan = make_plan(backbone)
    load: Callable[[], None] | None = None
    if config.weights not in ("pretrained", "random"):
        _check_package(config)
        load = partial(_load_own, backbone, config=config, heads=heads, device=device)
    is_loaded = _try(load)
    if hasattr(backbone, "set_input_size") and _pretrained_cfg(backbone)["input_size"][-1] != spec.size:
        _set_input_size(backbone, name=config.name, size=spec.size)
        is_loaded = is_loaded or _try(load)  # those of a network of this size, perhaps
    if config.until is not None:
        plan = cut_at(backbone, plan=plan, stage=config.until, name=config.name)
    described = POOLS[config.pool].describe(_pooled(backbone, plan=plan, config=config))
    show_pooled(backbone, described, is_cut=config.until is not None)
    if load is not None and not is_loaded:  # those of a network that ended there, perhaps; else this is what is wrong
        load()
    return backbone, plan


def _try(load: Callable[[], None] | None) -> bool:
    """Whether weights of one's own, if they are to be, are loaded."""
    try:
        if load is not None:
            load()
    except UserError:
        return False
    return True


def _pooled(backbone: nn.Module, *, plan: LayerPlan, config: ModelConfig) -> Pooled:
    return Pooled(
        backbone=backbone,
        plan=plan,
        name=config.name,
        is_cut=config.until is not None,
        num_blocks=config.pool_blocks,
        layout=partial(_layout, config.name),
    )


@cache
def _layout(name: str) -> Layout | None:
    """How the last map of an architecture lies, by shapes alone."""
    backbone, _ = laid_out(name)
    size = _pretrained_cfg(backbone)["input_size"]
    return layout_of(backbone.eval(), images=torch.zeros(2, *size, device="meta"))


def plan_of(name: str) -> LayerPlan:
    """The plan of an architecture, without its weights."""
    return laid_out(name)[1]


def laid_out(name: str) -> tuple[nn.Module, LayerPlan]:
    """An architecture without weights, on torch's meta device, and its plan."""
    backbone = _on_meta(name)
    _remove_classifier(backbone)
    return backbone, make_plan(backbone)


def parameter_sizes(name: str) -> dict[str, int]:
    """How many numbers each parameter of an architecture holds, its classifier's included."""
    return {key: parameter.numel() for key, parameter in _on_meta(name).named_parameters()}


def _pretrained_cfg(backbone: nn.Module) -> dict[str, Any]:
    """Timm's record of how the architecture was pretrained."""
    return cast(dict[str, Any], backbone.pretrained_cfg)


def serving_options(config: ModelConfig, *, spec: InputSpec, flexible: bool) -> dict[str, Any]:
    """What a package says of this backbone, by which timm builds it for use.

    ``input_size`` is what it is set to, where it is not its own; ``until`` the number of timm's intermediate behind which it is
    cut, ``pool`` how its features are pooled, None where they are the architecture's own.
    """
    options = _options(config.name, channels=len(spec.mean), flexible=flexible)
    model = _on_meta(config.name)
    is_set = hasattr(model, "set_input_size") and _pretrained_cfg(model)["input_size"][-1] != spec.size
    until = None
    backbone, plan = laid_out(config.name)
    if config.until is not None:
        until = end_of(backbone, plan=plan, stage=config.until, name=config.name)
        plan = cut_at(backbone, plan=plan, stage=config.until, name=config.name)
    pool = POOLS[config.pool].describe(_pooled(backbone, plan=plan, config=config))
    size = (spec.size, spec.size) if is_set else None
    return {"options": options, "input_size": size, "until": until, "pool": pool}


def _options(name: str, *, channels: int, flexible: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"in_chans": channels}
    if flexible and _accepts(name, "dynamic_img_size"):
        options["dynamic_img_size"] = True
    return options


def _build(config: ModelConfig, *, channels: int, flexible: bool) -> nn.Module:
    options = _options(config.name, channels=channels, flexible=flexible)
    if _accepts(config.name, "drop_path_rate"):
        options["drop_path_rate"] = config.drop_path  # 0 as well: some architectures have a rate of their own
    elif config.drop_path:
        raise UserError(
            f"model.drop_path: {config.name!r} takes no stochastic depth; set it to 0, not {config.drop_path:g}"
        )
    backbone = _create(config, options=options)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # which some architectures have too; the head's is `model.dropout`
    if getattr(backbone, "drop_rate", 0.0):
        backbone.drop_rate = 0.0  # type: ignore[assignment] # of those that drop by a function
    return backbone


def _create(config: ModelConfig, *, options: dict[str, Any]) -> nn.Module:
    is_sketch = torch.get_default_device().type == "meta"
    if config.weights != "pretrained" or is_sketch:
        backbone = cast(nn.Module, timm.create_model(config.name, pretrained=False, **options))
        cfg = _pretrained_cfg(backbone)
        if config.weights == "pretrained" and not any(
            cfg.get(place) for place in ("url", "file", "hf_hub_id", "state_dict")
        ):
            raise UserError(
                f"model.weights: timm has no pretrained weights of {config.name!r}; give a weights file, or `random`"
            )
        return backbone
    try:
        return cast(nn.Module, timm.create_model(config.name, pretrained=True, **options))
    except Exception as error:
        reason = plain(str(error).strip().partition("\n")[0]) or type(error).__name__
        kind = OutageError if isinstance(error, OSError) else UserError  # no connection, or none allowed
        raise kind(
            f"model.weights: the pretrained weights of {config.name!r} cannot be had ({reason}); "
            "give a weights file, or run once where the hub can be reached"
        ) from error


def _remove_classifier(backbone: nn.Module) -> tuple[str, ...]:
    """Take off the classifier, all of them where there are several; gives the names of the modules that were theirs."""
    classifier = backbone.get_classifier()  # type: ignore[operator]
    modules = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
    heads = {name for name, module in backbone.named_modules() if any(module is head for head in modules)}
    recorded = _pretrained_cfg(backbone).get("classifier") or ()
    heads |= {recorded} if isinstance(recorded, str) else set(recorded)
    before = list(backbone.state_dict())
    backbone.reset_classifier(0)  # type: ignore[operator]
    left = backbone.state_dict()
    heads |= {name.rpartition(".")[0] for name in before if name not in left}
    return tuple(sorted(heads))


@cache
def _accepts(name: str, option: str) -> bool:
    """Whether an architecture is built with an option: timm passes unknown ones on to a constructor that refuses them."""
    try:
        with torch.device("meta"):
            timm.create_model(name, **{option: 0})
    except TypeError:
        return False
    return True


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        raise UserError(f"model.name: unknown timm architecture {name!r}{nearest(name.lower(), timm.list_models())}")
    architecture, dot, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*") if dot else []
    if dot and name not in tags:
        hint = f"there are {', '.join(tags)}" if tags else f"{architecture!r} has none"
        raise UserError(f"model.name: timm knows no weights {tag!r} of {architecture!r}; {hint}")
    if architecture.endswith(ENCODER):
        raise UserError(f"model.name: {name!r} is an encoder of a larger model, without pooled features to classify by")


def _check_package(config: ModelConfig) -> None:
    package = config.weights.removeprefix("package:")
    architecture = PACKAGE_ARCHITECTURES.get(package)
    if config.weights.startswith("package:") and architecture and config.name != architecture:
        raise UserError(f"model.name: package:{package} holds weights of {architecture!r}, not of {config.name!r}")


def _load_own(backbone: nn.Module, *, config: ModelConfig, heads: tuple[str, ...], device: str) -> None:
    first_conv = _pretrained_cfg(backbone).get("first_conv")
    load_weights(backbone, source=config.weights, classifier=heads, first_conv=first_conv, device=device)


def _set_input_size(backbone: nn.Module, *, name: str, size: int) -> None:
    try:
        backbone.set_input_size(img_size=(size, size))  # type: ignore[operator]
    except (AssertionError, ValueError) as error:
        raise UserError(f"data.image_size: {size} does not fit {name!r} ({error})") from error


def _on_meta(name: str) -> nn.Module:
    _check_name(name)
    with torch.device("meta"):
        return cast(nn.Module, timm.create_model(name))


def _per_channel(values: tuple[float, ...], *, channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(channels))
