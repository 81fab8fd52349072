import pytest
import torch

from trainable.config.trial import OptimizerConfig, ScheduleConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import create_network
from trainable.training.lr_schedule import rate_factor
from trainable.training.optimizer import create_optimizer, set_rates

SPEC = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=0.875)


def network_of(name, depth=0.0):
    config = TrialConfig.model_validate({"model": {"name": name, "weights": "random"}, "freeze": {"depth": depth}})
    return create_network(config, spec=SPEC, num_classes=3)


def test_rates_are_absolute_and_hold_after_0_1_and_n_steps():
    network = network_of("resnet18")
    config = OptimizerConfig(lr=0.01, backbone_multiplier=0.5, layer_decay=0.8)
    optimizer = create_optimizer(network, config=config)
    schedule = ScheduleConfig(warmup_epochs=1, warmup_start=0.1)
    expected = {"head": 0.01, "layer4.1": 0.005 * 0.8, "layer4.0": 0.005 * 0.8**2, "conv1": 0.005 * 0.8**9}
    for step, factor in [(0, 0.1), (5, 0.55), (10, 1.0), (55, 0.5), (100, 0.0)]:
        share = rate_factor(step, num_steps=100, warmup_steps=10, config=schedule)
        assert share == pytest.approx(factor, abs=1e-12)
        set_rates(optimizer, factor=share)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        for name, peak in expected.items():
            assert rates[name] == pytest.approx(peak * factor, abs=1e-12)


def test_norms_biases_and_what_the_backbone_names_are_not_decayed():
    network = network_of("vit_tiny_patch16_224")
    optimizer = create_optimizer(network, config=OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(network.named_parameters())
    assert decay[id(parameters["backbone.pos_embed"])] == 0
    assert decay[id(parameters["backbone.cls_token"])] == 0
    assert decay[id(parameters["backbone.blocks.0.norm1.weight"])] == 0
    assert decay[id(parameters["backbone.blocks.0.attn.qkv.bias"])] == 0
    assert decay[id(parameters["backbone.blocks.0.attn.qkv.weight"])] == 0.3
    assert decay[id(parameters["head.1.weight"])] == 0.3


def test_layer_decay_changes_what_a_step_moves():
    network = network_of("resnet18")
    optimizer = create_optimizer(
        network, config=OptimizerConfig(name="sgd", momentum=0.0, lr=1.0, layer_decay=0.5, weight_decay=0)
    )
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {name: float((before[name] - p.detach()).mean()) for name, p in network.named_parameters()}
    assert moved["head.1.weight"] == pytest.approx(1.0)
    assert moved["backbone.layer4.1.conv2.weight"] == pytest.approx(0.5, rel=1e-5)
    assert moved["backbone.conv1.weight"] == pytest.approx(0.5**9, rel=1e-3)


def test_momentum_and_nesterov_reach_the_rules_that_have_them():
    network = network_of("resnet10t")
    made = create_optimizer(network, config=OptimizerConfig(name="muon", momentum=0.8, nesterov=False))
    assert {(group["momentum"], group["nesterov"]) for group in made.param_groups} == {(0.8, False)}
    made = create_optimizer(network, config=OptimizerConfig(name="lion", momentum=0.8))
    assert {group["betas"] for group in made.param_groups} == {(0.8, 0.99)}
    made = create_optimizer(network, config=OptimizerConfig(name="sgd", momentum=0.8))
    assert {(group["momentum"], group["nesterov"]) for group in made.param_groups} == {(0.8, True)}
