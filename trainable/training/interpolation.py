"""A trained network on its way back to the weights that it began with (WiSE-FT, Wortsman et al. 2022)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.model.network import WITH_THE_HEAD, Network, create_network
from trainable.model.phase import STRATEGIES
from trainable.training.setup import Setup

SHARES = (
    0.75,
    0.5,
    0.25,
)  # of the trained weights, that are tried; the paper's choice without validation images is half


def begins_trained(config: TrialConfig) -> bool:
    """Whether a trial's backbone begins with weights that were trained before."""
    return STRATEGIES[config.finetune.strategy].from_weights and config.model.weights != "random"


def starting_state(setup: Setup) -> dict[str, Tensor]:
    """What the numbers of the backbone that training has changed were when it began, by name; none where it began at random.

    Numbers are parameters and the statistics of batch norms. Head and pool, which began with nothing learnt, are not among them.
    """
    if not begins_trained(setup.config):
        return {}
    start = create_network(setup.config, spec=setup.inputs.full.spec, num_classes=len(setup.pack.classes)).state_dict()
    trained = {name: tensor for name, tensor in setup.network.state_dict().items() if tensor.is_floating_point()}
    return {
        name: start[name].to(tensor.device)
        for name, tensor in trained.items()
        if name != "shift"
        and not name.startswith(WITH_THE_HEAD)
        and not torch.equal(start[name].to(tensor.device), tensor)
    }


def interpolate(network: Network, start: Mapping[str, Tensor], *, share: float) -> None:
    """Let each number named in ``start`` be this ``share`` of what it is, the rest what it was."""
    state = network.state_dict()
    for name, began in start.items():
        state[name].copy_(torch.lerp(began, state[name], share))


@contextmanager
def interpolated(network: Network, start: Mapping[str, Tensor], *, share: float) -> Iterator[None]:
    """Inside, a network is between its start and itself."""
    state = network.state_dict()
    trained = {name: state[name].clone() for name in start}
    interpolate(network, start, share=share)
    try:
        yield
    finally:
        for name, tensor in trained.items():
            state[name].copy_(tensor)
