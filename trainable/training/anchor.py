"""Holds weights near where they began, or near what a champion needs of them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack
from trainable.errors import UserError
from trainable.loader.batches import normalise
from trainable.loader.views import evaluation_view
from trainable.model.head import create_head
from trainable.model.network import Network
from trainable.randomness import generator

FISHER_IMAGES = 128  # some hundred give the diagonal's order of magnitude, which is all that elastic weights use
HEAD, POOL = "head.", "pool."


class Anchor:
    """The penalty α/2·Σ_i f_i (w_i - w⁰_i)² as its gradient α·f_i (w_i - w⁰_i).

    With every importance f = 1 this is L2-SP (Li et al. 2018), with the Fisher information's diagonal elastic weight
    consolidation (Kirkpatrick et al. 2017).
    """

    def __init__(
        self, reference: Mapping[str, Tensor], *, strength: float, importance: Mapping[str, Tensor] | None = None
    ) -> None:
        """``reference``: the weights w⁰ by parameter name; parameters not in it are free."""
        self._reference = {name: tensor.detach().clone() for name, tensor in reference.items()}
        self._strength = strength
        self._importance = importance

    def pull(self, network: nn.Module) -> None:
        """Add the penalty's gradient to that of every anchored parameter that has one."""
        named = [
            (name, parameter)
            for name, parameter in network.named_parameters()
            if name in self._reference and parameter.grad is not None
        ]
        if not named:
            return
        with torch.no_grad():
            distances = torch._foreach_sub([p for _, p in named], [self._reference[name] for name, _ in named])
            if self._importance is not None:
                torch._foreach_mul_(distances, [self._importance[name] for name, _ in named])
            torch._foreach_add_([p.grad for _, p in named if p.grad is not None], distances, alpha=self._strength)


def fisher_information(network: Network, *, pack: Pack, spec: InputSpec, config: TrialConfig) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of the backbone's weights, by name, scaled to mean 1.

    That of the champion in ``model.weights``, its head included, over old training images: the mean over them of the squared
    gradient of log p(y), y drawn from the champion's own prediction (Kirkpatrick et al. 2017). Scaled, so that the strength
    means what it means for L2-SP. Raises UserError where the weights hold no head, or no pool, of this kind.
    """
    device = next(network.parameters()).device
    state = _champions_state(config)
    head = _champions_head(config, state=state, width=network.width).to(device).eval()
    network.eval()
    every = network.backbone.named_parameters()
    named = {f"backbone.{name}": parameter for name, parameter in every if name not in network.plan.light}
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    totals = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    randomness = generator(config.seed, "fisher")
    rows = pack.indices("train")
    chosen = torch.randperm(len(rows), generator=randomness)[:FISHER_IMAGES].numpy()
    with _champions_pool(network, config=config, state=state):
        for row in rows[chosen]:
            image = normalise(evaluation_view(pack.image(int(row)), spec)[None].to(device), spec)
            log_p = log_softmax(head(network.features(image)), dim=1)[0]
            drawn = int(torch.multinomial(log_p.detach().exp().cpu(), 1, generator=randomness))
            gradients = torch.autograd.grad(log_p[drawn], list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    totals[name] += gradient.square()
    for name, parameter in named.items():
        parameter.requires_grad_(before[name])
    mean = sum(float(total.sum()) for total in totals.values()) / sum(total.numel() for total in totals.values())
    return {name: total / max(mean, torch.finfo(torch.float32).tiny) for name, total in totals.items()}


def _champions_state(config: TrialConfig) -> Mapping[str, Tensor]:
    path = Path(config.model.weights)
    return load_file(path) if path.suffix == ".safetensors" and path.is_file() else {}


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(name): tensor for key, tensor in state.items() if key.startswith(name)}


@contextmanager
def _champions_pool(network: Network, *, config: TrialConfig, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, features are pooled as the champion's are, where that has weights. Raises UserError where it pools otherwise."""
    own, champions = network.pool, _part(state, POOL)
    if champions.keys() != (set() if own is None else own.state_dict().keys()):
        raise UserError(
            f"finetune.ewc: the network in {config.model.weights} pools otherwise than model.pool: {config.model.pool}"
        )
    if own is not None:
        network.pool = copy.deepcopy(own)
        network.pool.load_state_dict(champions)
    try:
        yield
    finally:
        network.pool = own


def _champions_head(config: TrialConfig, *, state: Mapping[str, Tensor], width: int) -> torch.nn.Module:
    head_state, path = _part(state, HEAD), config.model.weights
    if not head_state:
        raise UserError(
            f"finetune.ewc: model.weights: {path!r} holds no head; give the weights of a whole fine-tuned "
            "network, as `python -m trainable weights` writes them"
        )
    last = max(head_state, key=lambda name: (name.endswith("weight"), name))
    head = create_head(config, width=width, num_classes=len(head_state[last]), epoch=0)
    try:
        head.load_state_dict(head_state)
    except RuntimeError as error:
        raise UserError(
            f"finetune.ewc: the head in {path} is no {config.model.head!r} head of this backbone"
        ) from error
    return head
