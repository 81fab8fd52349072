"""What every update rule keeps: it holds all parameters, lowers a loss, obeys absolute rates, goes on where it was saved."""

import pytest
import torch
from torch import nn

from trainable.config.trial import OptimizerConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import create_network
from trainable.training.checkpoint import Counters, load_checkpoint, save_checkpoint
from trainable.training.optimizer import UPDATE_RULES, create_optimizer, set_rates

IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


def make(rule, *, depth=0.0, **values):
    """A small network away from the zeros of its start, behind which nothing has a gradient, and its optimizer."""
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
    config = TrialConfig.model_validate(
        {"model": {"name": "test_resnet", "weights": "random"}, "freeze": {"depth": depth}}
    )
    network = create_network(config, spec=spec, num_classes=3)
    randomness = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=randomness))
    return network, create_optimizer(network, config=OptimizerConfig(name=rule, **values))


def step(network, optimizer):
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(network(IMAGES.to(network.shift)), LABELS)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def weights_of(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("depth", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_it_holds_every_parameter_once_whatever_is_frozen(rule, depth):
    network, optimizer = make(rule, depth=depth)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_it_lowers_a_loss(rule):
    network, optimizer = make(rule, lr=1e-3, weight_decay=0.0)
    losses = [step(network, optimizer) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_only_what_trains_moves(rule):
    network, optimizer = make(rule, depth=1.0, weight_decay=0.1)
    before = weights_of(network)
    step(network, optimizer)
    moved = {name for name, weight in weights_of(network).items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if name.startswith("head.")}


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_rates_are_absolute_and_a_first_step_is_as_long_as_its_rate(rule):
    """With layer decay 0.5 unit i of n moves 0.5^(n-i) times as far as without, the head as far; in double precision."""
    moved = {}
    for decay in (1.0, 0.5):
        network, optimizer = make(rule, lr=1e-3, layer_decay=decay, weight_decay=0.0)
        network.double()
        before = weights_of(network)
        step(network, optimizer)
        moved[decay] = {name: weight - before[name] for name, weight in weights_of(network).items()}
    assert not any("lr_scale" in group for group in optimizer.param_groups)
    units = network.plan.unit_of()
    for name, change in moved[1.0].items():
        unit = units.get(name.removeprefix("backbone."), len(network.plan.units))
        expected = change * 0.5 ** (len(network.plan.units) - unit)
        assert change.any(), name
        torch.testing.assert_close(moved[0.5][name], expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_at_a_rate_of_0_nothing_moves_and_the_peak_stays_known(rule):
    network, optimizer = make(rule, lr=1e-3, layer_decay=0.5, weight_decay=0.1)
    peaks = [group["lr"] for group in optimizer.param_groups]
    set_rates(optimizer, factor=0.0)
    before = weights_of(network)
    step(network, optimizer)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(network).items())
    set_rates(optimizer, factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25 * peak for peak in peaks]


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_what_is_not_to_be_decayed_is_not(rule):
    """Without a gradient a rule has nothing to do but decay."""
    network, optimizer = make(rule, lr=1e-2, weight_decay=0.5, momentum=0.0)
    before = weights_of(network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {name for name, weight in weights_of(network).items() if weight.norm() < before[name].norm()}
    assert shrunk == {name for name, weight in before.items() if weight.ndim > 1}


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_restored_it_takes_the_next_steps_to_the_bit(rule, tmp_path):
    network, optimizer = make(rule)
    for _ in range(2):
        step(network, optimizer)
    names = set(weights_of(network))
    counters = Counters(1, {1: 0.5}, {})
    save_checkpoint(
        tmp_path / "one",
        network=network,
        moved=names,
        average=None,
        optimizer=optimizer,
        counters=counters,
        results={},
    )
    other, restored = make(rule)
    load_checkpoint(tmp_path / "one", network=other, moved=lambda epoch: names, average=None, optimizer=restored)
    for _ in range(2):
        assert step(network, optimizer) == step(other, restored)
    expected, found = network.state_dict(), other.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
