"""What every fine-tuning strategy keeps, on every family of backbones."""

from functools import cache
from importlib.util import find_spec

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainable.config.techniques import LIGHT_ADAPTERS
from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.additions import ADDITIONS
from trainable.model.network import create_network
from trainable.model.phase import STRATEGIES, phase, phases
from trainable.training.optimizer import create_optimizer

BACKBONES = {
    "resnet10t": 32,
    "vit_tiny_patch16_224": 32,
    "efficientnet_lite0": 32,
    "convnext_atto": 32,
    "mobilenetv3_small_050": 32,
    "swin_tiny_patch4_window7_224": 64,
}
SETTINGS = {  # what a strategy is tried with
    "partial": {"freeze": {"depth": 0.5}},
    "surgical": {"finetune": {"trainable": ["stage1", "stage2"]}},
    "gradual": {"finetune": {"every": 2}},
    "lp_ft": {"freeze": {"depth": 0.5}},
    "two_stage": {"finetune": {"classifier_share": 0.4}},
    "lora": {"freeze": {"depth": 0.5}, "finetune": {"rank": 2, "beside": "biases"}},
    "dora": {"freeze": {"depth": "stage2"}, "finetune": {"rank": 3, "beside": "norms"}},
    "adapter": {"freeze": {"depth": 0.5}, "finetune": {"bottleneck": 4}},
    "prompt": {"freeze": {"depth": 0.5}, "finetune": {"prompts": 2, "beside": "norms"}},
}
EPOCHS = 6
NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
NEEDING_PEFT = ("lora", "dora")
EVERY = [pytest.param(name, marks=NEEDS_PEFT if name in NEEDING_PEFT else ()) for name in STRATEGIES]
ON_EVERY = [
    pytest.param(name, strategy, marks=NEEDS_PEFT if strategy in NEEDING_PEFT else ())
    for name in BACKBONES
    for strategy in STRATEGIES
    if strategy != "prompt" or name.startswith("vit_")  # which is of transformers alone
]


def config_of(name, strategy):
    sections = {"model": {"name": name, "weights": "random"}, "train": {"epochs": EPOCHS}} | SETTINGS.get(strategy, {})
    sections["finetune"] = {"strategy": strategy} | sections.get("finetune", {})
    return TrialConfig.model_validate(sections)


def network_of(name, strategy):
    """The same for all strategies that put nothing into it."""
    return made(name, strategy if STRATEGIES[strategy].adapts else "full")


@cache
def made(name, strategy):
    spec = InputSpec(size=BACKBONES[name], mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
    return create_network(config_of(name, strategy), spec=spec, num_classes=3)


def moved_by_an_update(network, *, size):
    """Names of parameters and buffers that one update changes; the network is as before afterwards."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    randomness = torch.Generator().manual_seed(1)
    with (
        torch.no_grad()
    ):  # away from the zeros of a new head and of residual branches, behind which nothing has a gradient
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=randomness))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    optimizer.zero_grad()
    cross_entropy(network(images), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, start[name])}
    network.load_state_dict(before)
    return moved


@pytest.mark.parametrize(("name", "strategy"), ON_EVERY)
def test_exactly_what_a_phase_trains_moves_and_the_rest_stays_to_the_bit(name, strategy):
    network, config = network_of(name, strategy), config_of(name, strategy)
    parameters = {key for key, _ in network.named_parameters()}
    every = list(phases(config, plan=network.plan, until=EPOCHS))
    for one in every[:1] + every[-1:]:
        network.enter(one)
        moved = moved_by_an_update(network, size=BACKBONES[name])
        trainable = network.trainable(one)
        assert moved & parameters <= trainable
        # A bias before a softmax or a batch norm has no gradient to speak of, and stays.
        unmoved = trainable - moved
        assert len(unmoved) <= 0.2 * len(trainable), unmoved
        if one.frozen == frozenset(range(len(network.plan.units))) and not one.moving_norms:
            assert moved <= trainable


@pytest.mark.parametrize(("name", "strategy"), ON_EVERY)
def test_the_head_always_trains_and_the_phases_cover_every_epoch_once(name, strategy):
    network, config = network_of(name, strategy), config_of(name, strategy)
    head = {f"head.{key}" for key, _ in network.head.named_parameters()}
    spans = []
    for epoch in range(1, EPOCHS + 1):
        one = phase(config, plan=network.plan, epoch=epoch)
        assert head <= network.trainable(one)
        assert one.first <= epoch <= one.last
        spans.append((one.first, one.last))
    assert spans == sorted(spans)
    assert spans[-1][1] == EPOCHS


@pytest.mark.parametrize("strategy", EVERY)
def test_the_groups_of_the_optimizer_never_change(strategy):
    name = "vit_tiny_patch16_224" if strategy == "prompt" else "resnet10t"
    network, config = network_of(name, strategy), config_of(name, strategy)
    optimizer = create_optimizer(network, config=config.optimizer)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for one in phases(config, plan=network.plan, until=EPOCHS):
        network.enter(one)
        assert {id(parameter) for parameter in network.parameters()} == held


def test_what_may_be_known_of_light_adapters_without_torch_is_so():
    assert list(LIGHT_ADAPTERS) == list(ADDITIONS) == [name for name, row in STRATEGIES.items() if row.adapts]
