"""Bottlenecks behind the blocks of timm's networks with random weights: where they stand, what they compute."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.backbone import laid_out
from trainable.model.bottlenecks import chosen_blocks
from trainable.model.light_adapters import without_adapters
from trainable.model.network import create_network

torch.set_num_threads(1)
SPEC = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
FAMILIES = {  # the smallest of each: the size of its images, a block, how many channels that gives, and in which layout
    "test_vit": (64, "blocks.2", 64, "NLC"),
    "swin_tiny_patch4_window7_224": (64, "layers.3.blocks.0", 768, "NHWC"),
    "test_mambaout": (64, "stages.2.blocks.2", 48, "NHWC"),
    "test_convnext": (32, "stages.2.blocks.1", 48, "NCHW"),
    "test_resnet": (32, "layer4.0", 96, "NCHW"),
    "test_efficientnet": (32, "blocks.3.0", 48, "NCHW"),
}


def config_of(name="test_resnet", *, depth=0.5, seed=0, **finetune):
    return TrialConfig.model_validate(
        {
            "seed": seed,
            "model": {"name": name, "weights": "random"},
            "freeze": {"depth": depth},
            "finetune": {"strategy": "adapter", "bottleneck": 5} | finetune,
        }
    )


def make(config, *, size=None):
    return create_network(config, spec=replace(SPEC, size=size or FAMILIES[config.model.name][0]), num_classes=3)


def adapters(network):
    return {
        name.removesuffix(".bottleneck_adapter"): module
        for name, module in network.backbone.named_modules()
        if name.endswith(".bottleneck_adapter")
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_it_stands_behind_the_blocks_that_train_and_begins_as_no_change(name):
    size, block, channels, layout = FAMILIES[name]
    network = make(config_of(name)).eval()
    own = make(without_adapters(config_of(name))).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.features(images), own.features(images))
    found = adapters(network)
    assert "bn2" not in found  # a norm with an activation in it, of EfficientNet's
    kind = nn.Conv2d if layout == "NCHW" else nn.Linear
    assert all(type(adapter.down) is kind for adapter in found.values())
    assert found[block].down.weight.shape[:2] == (5, channels)
    unit_of, frozen = network.plan.unit_of(), network.plan.frozen(0.5)
    assert network.plan.light == {
        f"{place}.bottleneck_adapter.{key}" for place, adapter in found.items() for key, _ in adapter.named_parameters()
    }
    for place in found:
        inside = {unit for key, unit in unit_of.items() if key.startswith(f"{place}.")}
        assert len(inside) == 1
        assert inside.isdisjoint(frozen)
    names = [key for unit in network.plan.units for key in unit.parameters]
    assert sorted(names) == sorted(key for key, _ in network.backbone.named_parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "test_resnet"])
def test_it_adds_to_what_its_block_gives_a_bottleneck_of_each_position(name):
    size, place, channels, layout = FAMILIES[name]
    network = make(config_of(name)).eval()
    block, adapter = network.backbone.get_submodule(place), adapters(network)[place]
    nn.init.normal_(adapter.up.weight, generator=torch.Generator().manual_seed(1))
    given = []
    block.register_forward_hook(lambda _module, inputs, output: given.append((inputs[0], output)))
    with torch.no_grad():
        network.backbone(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
        (inputs, output), plain = given[0], copy.deepcopy(block)
        plain.__class__ = type(plain).__base__
        before = plain(inputs)
        assert before.shape[layout.index("C")] == channels
        columns = before.movedim(layout.index("C"), -1)
        hidden = columns @ adapter.down.weight.flatten(1).T + adapter.down.bias
        wanted = columns + hidden.clamp(min=0) @ adapter.up.weight.flatten(1).T + adapter.up.bias
    torch.testing.assert_close(output.movedim(layout.index("C"), -1), wanted, rtol=1e-4, atol=1e-4)
    assert (output - before).abs().max() > 0.1


def test_adapters_and_head_alone_train_and_their_start_depends_on_the_seed():
    network = make(config_of(adapter_dropout=0.3))
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trainable == {f"backbone.{name}" for name in network.plan.light} | {"head.1.weight", "head.1.bias"}
    assert {adapter.dropout.p for adapter in adapters(network).values()} == {0.3}
    first, second, third = (make(config_of(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    downs = [name for name in first if name.endswith("bottleneck_adapter.down.weight")]
    assert not any(torch.equal(first[name], third[name]) for name in downs)


def test_a_network_whose_blocks_give_several_tensors_is_one_line():
    backbone, plan = laid_out("crossvit_9_240")
    with pytest.raises(UserError) as caught:
        chosen_blocks(config_of("crossvit_9_240"), backbone=backbone, plan=plan, spec=replace(SPEC, size=240))
    assert str(caught.value) == (
        "finetune.strategy: crossvit_9_240 has no blocks above freeze.depth: 0.5 that 'adapter' could stand behind; take another "
        "strategy or model.name"
    )
