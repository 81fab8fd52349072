"""A smaller network of the same architecture: whole channels of least weight taken out."""

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.libraries import library
from trainable.model.network import Network
from trainable.model.pool import shows_stages

RATIOS = 256  # shares of channels that are told apart
CHANNELS_ARE_MULTIPLES_OF = 8  # as runtimes compute them: with 79 channels for 80, ONNX Runtime took 6 times as long


def require() -> None:
    """UserError where the library is missing."""
    library("torch_pruning", extra="pruning", wanted="--prune")


def check_prunable(network: nn.Module, *, name: str) -> None:
    """UserError for networks with attention, whose heads do not shrink channel by channel, and for features of several stages.

    Their maps are used twice, for mean and deviation, which the library follows without an end.
    """
    kinds = attention(network)
    if kinds:
        raise UserError(f"--prune: {name} has attention ({', '.join(kinds)}); only convolutional networks are pruned")
    if any(shows_stages(module) for module in network.modules()):
        raise UserError(
            f"--prune: {name} has model.pool: stages, whose channels cannot be followed; other pools are pruned"
        )


def attention(network: nn.Module) -> list[str]:
    """The classes of a network's attention layers."""
    names = {type(module).__name__ for module in network.modules()}
    return sorted(name for name in names if "attention" in name.lower())


def prune(network: Network, *, share: float, spec: InputSpec, name: str) -> Network:
    """A copy without the channels of smallest norm, the same share of them in every layer (Li et al. 2017, Fang et al. 2023).

    At least ``share`` of the *parameters* is gone, by as little more as the layers' widths allow; the classes stay. UserError for
    networks that cannot be pruned so far.
    """
    check_prunable(network, name=name)
    images = torch.zeros(2, len(spec.mean), spec.size, spec.size)
    low, high = 0, RATIOS - 1
    while low < high:
        middle = (low + high) // 2
        candidate = _pruned(network, ratio=middle / RATIOS, images=images, name=name)
        low, high = (low, middle) if removed(candidate, of=network) >= share else (middle + 1, high)
    candidate = _pruned(network, ratio=high / RATIOS, images=images, name=name)
    if removed(candidate, of=network) < share:
        raise UserError(
            f"--prune: at most {100 * removed(candidate, of=network):.0f} % of the parameters of {name} can be removed"
        )
    return candidate


def removed(network: nn.Module, *, of: nn.Module) -> float:
    """Share of the parameters that ``network`` lacks."""
    return 1 - count(network) / count(of)


def count(network: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _pruned(network: Network, *, ratio: float, images: Tensor, name: str) -> Network:
    torch_pruning: Any = library("torch_pruning", extra="pruning", wanted="--prune")
    smaller = copy.deepcopy(network).eval().requires_grad_(True)  # layers are linked by their gradients
    head = cast(nn.Sequential, smaller.head)
    last, plain = head[-1], _as_linear(head[-1])
    head[-1] = plain
    try:
        with warnings.catch_warnings(
            action="ignore", category=UserWarning
        ):  # names what it finds outside layers, as gamma
            torch_pruning.pruner.BasePruner(
                smaller,
                images,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[plain],
                round_to=CHANNELS_ARE_MULTIPLES_OF,
            ).step()
        last.weight = plain.weight
        head[-1] = last
        with torch.no_grad():
            smaller.width = int(smaller.features(images).shape[1])
            smaller(images)
    except Exception as error:  # whatever an architecture that the library cannot follow leads it to
        raise UserError(f"--prune: {name} cannot be pruned ({type(error).__name__}: {error})") from error
    return smaller


def _as_linear(layer: nn.Module) -> nn.Linear:
    """A head's last layer as one that the library can follow: where features are used twice, as by a cosine, it never ends."""
    if isinstance(layer, nn.Linear):
        return layer
    weight = cast(nn.Parameter, layer.weight)
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    plain.weight = weight
    return plain
