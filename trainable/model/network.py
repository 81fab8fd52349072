"""A backbone under a new head, with its frozen layers kept frozen."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from trainable.config.techniques import METHODS
from trainable.config.trial import ModelConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.loader.symmetries import Symmetry, turned
from trainable.model.adapter import Adapter, create_adapter
from trainable.model.additions import ADDITIONS
from trainable.model.backbone import create_backbone, input_spec
from trainable.model.chain import Chain
from trainable.model.head import cool, create_head
from trainable.model.layer_plan import LayerPlan, is_norm
from trainable.model.norms import add_target_statistics, batch_norms
from trainable.model.phase import STRATEGIES, Phase, phase, phases
from trainable.model.pool import POOLS, shows_positions
from trainable.model.stages import StageEnd, averaged, stage_ends
from trainable.model.text_tower import check_text_tower
from trainable.randomness import derive
from trainable.terminal import plain

KEPT_BACKBONES = 2  # of a process
WITH_THE_HEAD = ("head.", "pool.", "adapter.")  # the names of what trains in every epoch


class Network(nn.Module):
    """N×C×S×S images, normalised, to N×K logits.

    Freezing sets ``requires_grad=False`` and puts the frozen units' modules into eval mode, again after every
    :meth:`train`, so that neither batch-norm statistics nor dropout of a frozen layer ever move; with
    ``freeze.bn: train_stats`` its norms stay in train mode. ``shift``, K, is taken off the logits in eval mode;
    ``width`` is the number of features F; ``adapter`` is what learns beside the network to align domains. A ``pool`` with weights
    of its own, which train with the head, stands behind what the backbone makes of each position. In eval mode the logits are the
    mean over the images as they are and in all of ``views``.
    """

    shift: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        plan: LayerPlan,
        width: int,
        num_classes: int,
        adapter: Adapter | None = None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.head = head
        self.adapter = adapter if adapter is not None else Adapter()
        self.plan = plan
        self.width = width
        self.register_buffer("shift", torch.zeros(num_classes))
        self.views: tuple[Symmetry, ...] = ()
        self._resting: tuple[nn.Module, ...] = ()
        self._links: tuple[nn.Module, ...] = ()  # of its chain, once that is asked for
        self._phase: Phase | None = None
        self._suffix: tuple[nn.Module, ...] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits N×K of images N×C×S×S."""
        return self.answer(images)[1]

    def answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features N×F of the images as they are, and logits N×K."""
        features = self.features(images)
        logits = self.classify(features)
        if self.training or not self.views:
            return features, logits
        others = [self.classify(self.features(turned(images, view))) for view in self.views]
        return features, torch.stack([logits, *others]).mean(dim=0)

    def classify(self, features: Tensor) -> Tensor:
        """Logits N×K of pooled features N×F."""
        logits: Tensor = self.head(features)
        return logits if self.training else logits - self.shift

    def features(self, images: Tensor) -> Tensor:
        """Pooled features N×F of images N×C×S×S, or inside :meth:`beginning_behind` of what the links before made of them."""
        outputs = images
        for link in (self.backbone,) if self._suffix is None else self._suffix:
            outputs = link(outputs)
        if self.pool is not None:
            outputs = cast(Any, self.backbone).finish(self.pool(outputs))
        return outputs

    def links(self, chain: Chain) -> tuple[nn.Module, ...]:
        """The backbone as the modules of its chain, made once."""
        if not self._links:
            self._links = tuple(link.module(self.backbone) for link in chain)
        return self._links

    @contextmanager
    def beginning_behind(self, links: int, *, chain: Chain) -> Iterator[None]:
        """Inside, the network takes what its first ``links`` links made of the images; with 0 the images."""
        before, self._suffix = self._suffix, self.links(chain)[links:] if links else None
        try:
            yield
        finally:
            self._suffix = before

    def look(self, images: Tensor, *, end: StageEnd | None) -> tuple[Tensor, Tensor]:
        """Pooled features N×F, and the averaged output of the module that ends a stage; without ``end`` the same twice."""
        if end is None:
            features = self.features(images)
            return features, features
        outputs: list[Tensor] = []
        module = self.backbone.get_submodule(end.module)
        hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            features = self.features(images)
        finally:
            hook.remove()
        return features, averaged(outputs[0], channels=end.channels)

    def enter(self, phase: Phase) -> None:
        """Make exactly what the phase says trainable, whatever was before."""
        if phase == self._phase:
            return
        self._phase = phase
        trainable = self.trainable(phase)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)
        leaves = _leaves_by_unit(self.backbone, self.plan.unit_of())
        self._resting = tuple(module for unit, module in leaves if _rests(module, unit=unit, phase=phase))
        self.train(self.training)

    def cool(self, temperature: float) -> None:
        """Divide the logits by a temperature from now on."""
        cool(self.head, temperature=temperature)
        self.shift.div_(temperature)

    def set_head(self, **values: Tensor) -> None:
        """Give the head's last layer its parameters by name: weight K×F, and bias K, or, of a cosine head, scale 1."""
        last = cast(nn.Sequential, self.head)[-1]
        with torch.no_grad():
            for name, value in values.items():
                last.get_parameter(name).copy_(value)

    def trainable(self, phase: Phase) -> set[str]:
        """Names of the parameters that train in a phase."""
        unit_of, norms = self.plan.unit_of(), _norm_parameters(self.backbone)
        names = {name for name, _ in self.named_parameters() if name.startswith(WITH_THE_HEAD)}
        for name, _ in self.backbone.named_parameters():
            kinds = {"norms": name in norms, "biases": _is_bias(name), "nothing": False}
            works = unit_of[name] not in phase.frozen
            beside = phase.beside is None or name in self.plan.light or kinds[phase.beside]
            if kinds[phase.within] or (works and beside):
                names.add(f"backbone.{name}")
        return names

    def moved(self, config: TrialConfig, *, until: int) -> set[str]:
        """Names of the parameters that train in any of the epochs 1 to ``until``."""
        return set().union(*(self.trainable(each_phase) for each_phase in phases(config, plan=self.plan, until=until)))

    def train(self, mode: bool = True) -> Self:
        """Torch's train mode, the frozen layers excepted."""
        super().train(mode)
        for module in self._resting:
            module.training = False  # not eval(), which would reach trainable layers inside, of a ViT all its blocks
        return self


def create_network(config: TrialConfig, *, spec: InputSpec, num_classes: int) -> Network:
    """The network of a trial in its first phase; the head's random start depends on the trial's seed alone."""
    backbone, plan, width, channels = _sized_backbone(config, spec=spec)
    if STRATEGIES[config.finetune.strategy].adapts:
        plan = ADDITIONS[config.finetune.strategy].add(backbone, plan=plan, config=config, spec=spec)
    learned = POOLS[config.model.pool].learned
    head = create_head(config, width=width, num_classes=num_classes, epoch=0)
    end = aligned_stage(config, backbone=backbone, plan=plan)
    adapter = create_adapter(
        config.adapt, width=width if end is None else end.channels, num_classes=num_classes, seed=config.seed
    )
    network = Network(
        backbone,
        head,
        plan=plan,
        width=width,
        num_classes=num_classes,
        adapter=adapter,
        pool=None if learned is None else learned(channels),
    )
    if METHODS[config.adapt.method].target_norms is not None:
        add_target_statistics(network.backbone)
    network.enter(phase(config, plan=plan, epoch=1))
    return network


def check_network(config: TrialConfig) -> None:
    """Raise UserError where :func:`create_network` will: shapes alone are made, no hub is asked."""
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    _sized_backbone(config, spec=spec, device="meta")
    if config.model.head == "text":
        check_text_tower(config)


class _Sized(NamedTuple):
    """A backbone with its plan, the width of its features, and the channels of what is pooled into them."""

    backbone: nn.Module
    plan: LayerPlan
    width: int
    channels: int


def _sized_backbone(config: TrialConfig, *, spec: InputSpec, device: str = "cpu") -> _Sized:
    """The backbone as it is; a UserError where it cannot take images of the trial's sizes."""
    model, early_size = config.model, config.data.early_size
    if not STRATEGIES[config.finetune.strategy].from_weights:
        model = model.model_copy(update={"weights": "random"})
    built = _built(
        model,
        spec=spec,
        early_size=early_size,
        seed=derive(config.seed, "backbone"),
        device=device,
        weights_state=_state_of(model.weights),
    )
    return built._replace(backbone=copy.deepcopy(built.backbone)) if device == "cpu" else built


@lru_cache(maxsize=KEPT_BACKBONES)
def _built(
    model: ModelConfig, *, spec: InputSpec, early_size: int | None, seed: int, device: str, weights_state: object
) -> _Sized:
    """A backbone as it begins, kept for the next trial of this process: it is copied, and never trained itself."""
    backbone, plan = create_backbone(
        model, spec=spec, flexible=early_size is not None, generator_seed=seed, device=device
    )
    width, channels = _widths(backbone, spec=spec)
    if early_size is not None:
        _widths(backbone, spec=replace(spec, size=early_size))
    return _Sized(backbone, plan, width, channels)


def _state_of(weights: str) -> object:
    """What tells a weights file from one that was written in its place; None for what is no file."""
    try:
        status = Path(weights).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def aligned_stage(config: TrialConfig, *, backbone: nn.Module, plan: LayerPlan) -> StageEnd | None:
    """Where the stage of ``adapt.layer`` ends; None for the pooled features.

    Raises UserError where the backbone has no such stage or training leaves it as it is, and for a method of batch norms
    where there are none.
    """
    adapt, method = config.adapt, METHODS[config.adapt.method]
    if method.target_norms is not None and not batch_norms(backbone):
        raise UserError(f"adapt.method: {adapt.method!r} needs batch norms, {config.model.name} has none")
    if not method.aligns or adapt.layer == "pooled":
        return None
    ends = stage_ends(backbone, plan=plan)
    if adapt.layer not in ends:
        raise UserError(f"adapt.layer: {config.model.name} shows no {adapt.layer!r}, but {', '.join(ends) or 'none'}")
    end = ends[adapt.layer]
    every = phases(config, plan=plan, until=config.train.epochs)
    if all(set(range(end.unit + 1)) <= each_phase.frozen and each_phase.within == "nothing" for each_phase in every):
        raise UserError(
            f"adapt.layer: {adapt.layer!r} of {config.model.name} is frozen, so nothing can be aligned in it"
        )
    return end


def _widths(backbone: nn.Module, *, spec: InputSpec) -> tuple[int, int]:
    """Of the features and of what is pooled into them; measured, as neither of timm's width attributes holds for every family."""
    training, device = backbone.training, next(backbone.parameters()).device
    try:
        with torch.no_grad():
            pooled = features = backbone.eval()(torch.zeros(1, len(spec.mean), spec.size, spec.size, device=device))
            if shows_positions(backbone):
                pooled = features.mean(dim=1)
                features = cast(Any, backbone).finish(pooled)
    except (RuntimeError, AssertionError) as error:
        reason = f" ({plain(str(error).partition(chr(10))[0])})" if str(error) else ""
        raise UserError(f"data.image_size: this backbone cannot take images of {spec.size} pixels{reason}") from error
    backbone.train(training)
    return int(features.shape[1]), int(pooled.shape[1])


def _norm_parameters(backbone: nn.Module) -> set[str]:
    return {
        f"{name}.{parameter}"
        for name, module in backbone.named_modules()
        if is_norm(module)
        for parameter, _ in module.named_parameters(recurse=False)
    }


def _rests(module: nn.Module, *, unit: int, phase: Phase) -> bool:
    """Whether a module stays in eval mode."""
    if is_norm(module) and (phase.still_norms or phase.moving_norms):
        return phase.still_norms
    return unit in phase.frozen


def _is_bias(name: str) -> bool:
    return name.endswith("bias")  # BEiT calls its two q_bias and v_bias


def _leaves_by_unit(backbone: nn.Module, unit_of: dict[str, int]) -> Iterator[tuple[int, nn.Module]]:
    """Modules without children, or with weights of their own, with the unit they work in.

    One without weights (dropout, stochastic depth) works where the weights next to it in the module tree lie; where
    those are of several units it belongs to the last of them, so that it never rests while one of them trains.
    """
    for name, module in backbone.named_modules():
        parameters = [
            f"{name}.{parameter}" if name else parameter for parameter, _ in module.named_parameters(recurse=False)
        ]
        if parameters:
            yield max(unit_of[parameter] for parameter in parameters), module
        elif not list(module.children()):
            yield _nearest_unit(name, unit_of), module


def _nearest_unit(name: str, unit_of: dict[str, int]) -> int:
    path = name.split(".")
    for length in range(len(path) - 1, -1, -1):
        prefix = ".".join(path[:length])
        units = [unit for parameter, unit in unit_of.items() if not prefix or parameter.startswith(f"{prefix}.")]
        if units:
            return max(units)
    return 0
