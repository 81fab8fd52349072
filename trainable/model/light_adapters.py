"""The door to peft: light adapters in layers of a backbone, whose own weights rest."""

import copy
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from trainable.config.trial import FinetuneConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.libraries import library
from trainable.model.layer_plan import LayerPlan
from trainable.model.phase import STRATEGIES
from trainable.randomness import seeded

BASE = "base_layer"  # what peft calls the layer that an adapter is in
LOADED_BY_PEFT = ("peft", "transformers", "accelerate")
MAGNITUDE = "lora_magnitude_vector"
logger = logging.getLogger(__name__)

Chooses = Callable[[nn.Module, str], bool]  # by a layer, and by the names of the classes that it lies in


def require(strategy: str) -> None:
    """Raise UserError where peft, which a strategy needs, or what it loads is not installed; loads nothing that is there."""
    if any(find_spec(name) is None for name in LOADED_BY_PEFT):
        _peft(strategy)


def add_adapters(backbone: nn.Module, *, plan: LayerPlan, config: TrialConfig, spec: InputSpec) -> LayerPlan:
    """Put an adapter into each layer that a configuration chooses; gives the plan with the adapters' parameters.

    An adapter belongs to the unit of its layer. It begins as no change, with a random half that depends on the trial's seed
    alone (Hu et al. 2022, Liu et al. 2024). Raises UserError where peft is missing or no layer can be adapted.
    """
    peft, finetune = _peft(config.finetune.strategy), config.finetune
    layers = _called(chosen_layers(config, backbone=backbone, plan=plan), backbone=backbone, spec=spec)
    if finetune.strategy == "dora":
        layers = _with_directions(layers, backbone=backbone)
    if not layers:
        raise _nothing_to_adapt(config)
    settings = peft.LoraConfig(
        r=finetune.rank,
        lora_alpha=_alpha(finetune),
        lora_dropout=finetune.adapter_dropout,
        target_modules="|".join(re.escape(layer) for layer in layers),
        use_dora=finetune.strategy == "dora",
    )
    with seeded(config.seed, "light adapters"):
        peft.inject_adapter_in_model(settings, backbone)
    return _with_adapters(plan, layers=layers, backbone=backbone)


def chosen_layers(config: TrialConfig, *, backbone: nn.Module, plan: LayerPlan) -> tuple[str, ...]:
    """Names of the layers of ``finetune.targets`` above ``freeze.depth``. Raises UserError where there are none."""
    frozen, unit_of = plan.frozen(config.freeze.depth), plan.unit_of()
    chooses = TARGETS[_targets(config.finetune, backbone=backbone)]
    layers = tuple(
        name
        for name, layer, classes in _dense_layers(backbone)
        if unit_of[f"{name}.weight"] not in frozen and chooses(layer, classes)
    )
    if not layers:
        raise _nothing_to_adapt(config)
    return layers


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module, each of peft's adapters taken into its layer, by the names of timm's network.

    That is computed on the CPU, in whole float32: a GPU's products are shorter.
    """
    every = module.named_modules(remove_duplicate=False)  # a module that two hold has two names in a state dict
    layers = {name: layer for name, layer in every if _is_adapted(layer)}
    state = {name: tensor for name, tensor in module.state_dict().items() if _owner(name, layers) is None}
    with torch.no_grad():
        for name, layer in layers.items():
            merged: Any = copy.deepcopy(layer).cpu()
            merged.merge()
            device = next(layer.parameters()).device
            state |= {f"{name}.{key}": value.to(device) for key, value in merged.get_base_layer().state_dict().items()}
    return state


def without_adapters(config: TrialConfig) -> TrialConfig:
    """The configuration of the network with the same layers trained, and no adapters."""
    if not STRATEGIES[config.finetune.strategy].adapts:
        return config
    return config.model_copy(update={"finetune": FinetuneConfig(strategy="partial")})


def as_served(config: TrialConfig) -> TrialConfig:
    """The configuration of the network that :func:`plain_state` is of: of adapters it has those alone that are served."""
    return config if STRATEGIES[config.finetune.strategy].served else without_adapters(config)


def keep_rows(backbone: nn.Module, *, plan: LayerPlan) -> None:
    """Lay the adapters' weights out row by row, whatever the memory format of the rest: so peft looks at DoRA's convolutions."""
    for name, parameter in backbone.named_parameters():
        if name in plan.light:
            parameter.data = parameter.data.contiguous()


def magnitudes(plan: LayerPlan) -> set[str]:
    """Names of DoRA's magnitudes, which scale a layer's outputs as norms do."""
    return {name for name in plan.light if f".{MAGNITUDE}." in name}


def _peft(strategy: str) -> Any:
    return library("peft", extra="peft", wanted=f"finetune.strategy: {strategy}")


def _alpha(finetune: FinetuneConfig) -> float:
    return 2.0 * finetune.rank if finetune.alpha is None else finetune.alpha


def _nothing_to_adapt(config: TrialConfig) -> UserError:
    finetune = config.finetune
    return UserError(
        f"finetune.targets: {config.model.name} has no layers of {finetune.targets!r} above freeze.depth: {config.freeze.depth} "
        f"that {finetune.strategy!r} could adapt; there are {', '.join(TARGETS)}"
    )


def _dense_layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Linear layers and convolutions whose adapter can be taken into them, with the names of the classes they lie in.

    One that two modules hold, or whose weights are another's too, is passed by: an adapter would change one use of them alone.
    """
    classes = {name: type(module).__name__.lower() for name, module in backbone.named_modules()}
    holders = Counter(
        id(held) for module in backbone.modules() for held in (*module.children(), *module.parameters(recurse=False))
    )
    for name, module in backbone.named_modules():
        if _can_be_adapted(module) and holders[id(module)] == holders[id(module.weight)] == 1:
            yield name, module, " ".join(classes[outer] for outer in _modules_around(name))


def _can_be_adapted(module: nn.Module) -> bool:
    """Whether it computes what torch's own layer does: others alter their weights or their padding as they go."""
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros" and set(module.dilation) == {1}
    return type(module) is nn.Linear


def _targets(finetune: FinetuneConfig, *, backbone: nn.Module) -> str:
    if finetune.targets != "auto":
        return finetune.targets
    kinds = Counter(isinstance(layer, nn.Linear) for _, layer, _ in _dense_layers(backbone))
    return "all_linear" if kinds[True] > kinds[False] else "convolutions"


TARGETS: Mapping[str, Chooses] = {
    "attention": lambda _, classes: "attention" in classes or "attn" in classes,
    "mlp": lambda _, classes: "mlp" in classes or "glu" in classes or "ffn" in classes,
    "all_linear": lambda layer, _: isinstance(layer, nn.Linear),
    "convolutions": lambda layer, _: isinstance(layer, nn.Conv2d),
}


def _called(layers: tuple[str, ...], *, backbone: nn.Module, spec: InputSpec) -> tuple[str, ...]:
    """The layers that the backbone calls: of the others it reads the weights, past an adapter, which is said."""
    called: set[str] = set()
    hooks = [
        backbone.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name)) for name in layers
    ]
    training, size = backbone.training, spec.size
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, len(spec.mean), size, size, device=next(backbone.parameters()).device))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    return _without(layers, [name for name in layers if name not in called], because="their weights are read past it")


def _with_directions(layers: tuple[str, ...], *, backbone: nn.Module) -> tuple[str, ...]:
    """The layers without outputs of weight zero, which have no direction for DoRA to keep."""
    weights = {name: backbone.get_parameter(f"{name}.weight").detach() for name in layers}
    dead = [name for name, weight in weights.items() if not bool(weight.flatten(1).norm(dim=1).all())]
    return _without(layers, dead, because="some of their outputs have no weights")


def _without(layers: tuple[str, ...], left_out: list[str], *, because: str) -> tuple[str, ...]:
    if left_out:
        logger.warning("no adapter in %d layers, %s: %s", len(left_out), because, ", ".join(left_out))
    return tuple(name for name in layers if name not in left_out)


def _with_adapters(plan: LayerPlan, *, layers: tuple[str, ...], backbone: nn.Module) -> LayerPlan:
    """The plan by the names that parameters have now, each adapter's behind the weight of its layer."""
    now: dict[str, list[str]] = {}
    light: set[str] = set()
    for layer in layers:
        names = [name for name, _ in backbone.get_submodule(layer).named_parameters()]
        now |= {f"{layer}.{name.removeprefix(f'{BASE}.')}": [f"{layer}.{name}"] for name in names if _is_own(name)}
        adapter = [f"{layer}.{name}" for name in names if not _is_own(name)]
        now[f"{layer}.weight"] += adapter
        light.update(adapter)
    units = (
        replace(unit, parameters=tuple(name for before in unit.parameters for name in now.get(before, [before])))
        for unit in plan.units
    )
    return replace(plan, units=tuple(units), light=frozenset(light))


def _is_own(name: str) -> bool:
    """Whether a parameter is that of the adapted layer itself."""
    return name.startswith(f"{BASE}.")


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, BASE) and hasattr(module, "lora_A")


def _owner(name: str, layers: Mapping[str, nn.Module]) -> str | None:
    """The adapted layer that a tensor belongs to."""
    return next((module for module in _modules_around(name) if module in layers), None)


def _modules_around(name: str) -> Iterator[str]:
    """Names of the modules that a module or a tensor lies in, but for the outermost."""
    path = name.split(".")
    return (".".join(path[:length]) for length in range(1, len(path)))
