"""A backbone under a new head, with its frozen layers kept frozen."""

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from trainable.config import FreezeConfig, ModelConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.backbone import create_backbone
from trainable.model.plan import LayerPlan, is_norm
from trainable.randomness import derive


class Network(nn.Module):
    """N×C×S×S images, normalised, to N×K logits.

    Freezing sets ``requires_grad=False`` and puts the frozen units' modules into eval mode, again after every
    :meth:`train`, so that neither batch-norm statistics nor dropout of a frozen layer ever move. With
    ``freeze.bn: train_stats`` its norms stay in train mode; with ``train_all`` their weights train too.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, plan: LayerPlan) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.plan = plan
        self._resting: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Logits N×K of images N×C×S×S."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Pooled features N×F of images N×C×S×S."""
        features: Tensor = self.backbone(images)
        return features

    def freeze(self, config: FreezeConfig) -> None:
        """Make exactly the units that ``config`` names frozen, whatever was frozen before."""
        frozen = self.plan.frozen(config.depth)
        unit_of = self.plan.unit_of()
        norm_parameters = _norm_parameters(self.backbone)
        for name, parameter in self.backbone.named_parameters():
            trains_as_norm = config.bn == "train_all" and name in norm_parameters
            parameter.requires_grad_(unit_of[name] not in frozen or trains_as_norm)
        modules = [module for unit, module in _leaves_by_unit(self.backbone, unit_of) if unit in frozen]
        self._resting = tuple(module for module in modules if config.bn == "eval" or not is_norm(module))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Torch's train mode, the frozen layers excepted."""
        super().train(mode)
        for module in self._resting:
            module.eval()
        return self


def create_network(config: TrialConfig, *, spec: InputSpec, num_classes: int) -> Network:
    """The network of a trial; the head's random start depends on the trial's seed alone."""
    backbone, plan = create_backbone(config.model, spec=spec, generator_seed=derive(config.seed, "backbone"))
    width = _feature_width(backbone, spec=spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(config.seed, "head"))
        head = _create_head(config.model, width=width, num_classes=num_classes)
    network = Network(backbone, head, plan=plan)
    network.freeze(config.freeze)
    return network


def _create_head(config: ModelConfig, *, width: int, num_classes: int) -> nn.Module:
    """A head that starts at zero logits, so that the first gradients reach the backbone unscrambled."""
    last = nn.Linear(width if config.head == "linear" else config.head_hidden, num_classes)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if config.head == "linear":
        return nn.Sequential(nn.Dropout(config.dropout), last)
    return nn.Sequential(nn.Linear(width, config.head_hidden), nn.ReLU(), nn.Dropout(config.dropout), last)


def _feature_width(backbone: nn.Module, *, spec: InputSpec) -> int:
    """Measured, because neither of timm's two width attributes holds for every family."""
    training = backbone.training
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, len(spec.mean), spec.size, spec.size))
    except RuntimeError as error:
        raise UserError(f"data.image_size: this backbone cannot take images of {spec.size} pixels ({error})") from error
    backbone.train(training)
    return int(features.shape[1])


def _norm_parameters(backbone: nn.Module) -> set[str]:
    return {
        f"{name}.{parameter}"
        for name, module in backbone.named_modules()
        if is_norm(module)
        for parameter, _ in module.named_parameters(recurse=False)
    }


def _leaves_by_unit(backbone: nn.Module, unit_of: dict[str, int]) -> Iterator[tuple[int, nn.Module]]:
    """Modules without children, or with weights of their own, with the unit they work in.

    One without weights (dropout, stochastic depth) works where the weights next to it in the module tree lie; where
    those are of several units it belongs to the last of them, so that it never rests while one of them trains.
    """
    for name, module in backbone.named_modules():
        own = [f"{name}.{parameter}" if name else parameter for parameter, _ in module.named_parameters(recurse=False)]
        if own:
            yield max(unit_of[parameter] for parameter in own), module
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
