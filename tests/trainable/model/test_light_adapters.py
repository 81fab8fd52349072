"""Adapters in timm's networks with random weights: what they are put into, what they compute, what is left of them."""

import logging
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import linear

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.layer_plan import make_plan
from trainable.model.light_adapters import (
    TARGETS,
    add_adapters,
    chosen_layers,
    keep_rows,
    plain_state,
    without_adapters,
)
from trainable.model.network import create_network
from trainable.training.optimizer import parameter_groups

torch.set_num_threads(1)
SPEC = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
SHARING = {"coat_tiny": 224}  # whose parallel branches hold one module under several names
FAMILIES = {  # the smallest of each, with the size of its images
    "test_vit": 64,
    "swin_tiny_patch4_window7_224": 64,
    "test_convnext": 32,
    "test_resnet": 32,
    "test_efficientnet": 32,
}
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


def config_of(name="test_vit", strategy="lora", *, depth=0.0, seed=0, **finetune):
    return TrialConfig.model_validate(
        {
            "seed": seed,
            "model": {"name": name, "weights": "random"},
            "freeze": {"depth": depth},
            "finetune": {"strategy": strategy} | finetune,
        }
    )


def make(config, *, size=None):
    spec = replace(SPEC, size=size or (FAMILIES | SHARING)[config.model.name])
    return create_network(config, spec=spec, num_classes=3)


def shake(network, *, names):
    """Move these parameters as far as a training might."""
    randomness = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in names:
                parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=randomness))
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=randomness))


def images_of(network, *, size):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@needs_peft
@pytest.mark.parametrize("strategy", ["lora", "dora"])
@pytest.mark.parametrize("name", FAMILIES | SHARING)
def test_adapters_taken_into_their_layers_leave_timms_network_which_computes_the_same(name, strategy):
    config = config_of(name, strategy, rank=3, alpha=2.5, beside="norms", depth="stem")
    network = make(config).eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key.endswith("gamma"):
                parameter.fill_(1.0)  # ConvNeXt's branches begin at a millionth of their size
    before = {key: tensor.clone() for key, tensor in plain_state(network).items()}
    shake(network, names={f"backbone.{light}" for light in network.plan.light})
    plain = make(without_adapters(config)).eval()
    assert not any("lora" in key or "base_layer" in key for key in plain.state_dict())
    plain.load_state_dict(plain_state(network))  # refuses any other name
    images = images_of(network, size=(FAMILIES | SHARING)[name])
    with torch.no_grad():
        adapted, merged = network.features(images), plain.features(images)
        plain.load_state_dict(before)
        unadapted = plain.features(images)
    # Sums of the same numbers in another order: some last bits, while the adapters change much.
    assert (merged - adapted).abs().max() < 1e-4 * adapted.abs().max()
    assert (adapted - unadapted).abs().max() > 0.02 * adapted.abs().max()


@needs_peft
@pytest.mark.parametrize("strategy", ["lora", "dora"])
@pytest.mark.parametrize("name", FAMILIES)
def test_at_its_start_an_adapted_backbone_gives_its_own_output(name, strategy):
    config = config_of(name, strategy)
    network, own = make(config).eval(), make(without_adapters(config)).eval()
    images = images_of(network, size=FAMILIES[name])
    with torch.no_grad():
        adapted, features = network.features(images), own.features(images)
    # LoRA adds zeros; DoRA multiplies by a norm over itself, which is 1 but for the last bit, in every layer.
    torch.testing.assert_close(adapted, features, rtol=0, atol=0 if strategy == "lora" else 1e-5)


@needs_peft
@pytest.mark.parametrize("depth", [0.0, 0.5, "stage2", ["stage3"]])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_holds_every_parameter_once_and_adapters_in_units_that_are_not_frozen_alone(name, depth):
    network = make(config_of(name, depth=depth, rank=2))
    names = [name for unit in network.plan.units for name in unit.parameters]
    assert sorted(names) == sorted(name for name, _ in network.backbone.named_parameters())
    unit_of, frozen = network.plan.unit_of(), network.plan.frozen(depth)
    assert network.plan.light == {name for name in names if ".lora_" in name}
    assert {unit_of[name] for name in network.plan.light}.isdisjoint(frozen)
    for light in network.plan.light:
        assert unit_of[light] == unit_of[f"{light.partition('.lora_')[0]}.base_layer.weight"]
    bare = make(without_adapters(config_of(name, depth=depth)))
    assert [unit.name for unit in network.plan.units] == [unit.name for unit in bare.plan.units]


@needs_peft
@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ("nothing", set()),
        ("norms", {"bn1.weight", "bn1.bias"}),
        ("biases", {"bn1.bias"}),
    ],
)
def test_adapters_and_head_train_and_beside_them_what_is_asked_for(beside, expected):
    config = config_of("test_resnet", depth="stage1", beside=beside)
    network = make(config)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    light = {f"backbone.{name}" for name in network.plan.light}
    assert light
    assert {name for name in trainable if name.startswith("backbone.layer4.0.bn1")} == {
        f"backbone.layer4.0.{name}" for name in expected
    }
    assert light | {"head.1.weight", "head.1.bias"} <= trainable
    if beside == "nothing":
        assert trainable == light | {"head.1.weight", "head.1.bias"}
    norms = {name: norm.training for name, norm in network.train().backbone.named_modules() if "bn1" in name}
    assert norms["bn1"] is False
    assert norms["layer4.0.bn1"] is (beside == "norms")


@needs_peft
def test_adapters_have_the_rates_of_their_units_and_decay_but_for_magnitudes():
    config = config_of("test_resnet", "dora")
    optimizer = config.optimizer.model_copy(update={"layer_decay": 0.5, "weight_decay": 0.1, "lr": 1.0})
    network = make(config)
    names = {id(parameter): name for name, parameter in network.backbone.named_parameters()}
    unit_of, count, seen = network.plan.unit_of(), len(network.plan.units), set()
    for group in parameter_groups(network, config=optimizer):
        for name in {names[id(p)] for p in group["params"] if id(p) in names} & network.plan.light:
            seen.add(name)
            assert group["lr"] == 0.5 ** (count - unit_of[name])
            assert group["weight_decay"] == (0.0 if "magnitude" in name else 0.1)
    assert seen == network.plan.light


@needs_peft
def test_the_start_depends_on_the_seed_alone_and_draws_nothing_from_others():
    first = make(config_of(seed=1)).state_dict()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second, third = make(config_of(seed=1)).state_dict(), make(config_of(seed=2)).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    halves = [name for name in first if "lora_A" in name]
    assert halves
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in halves)


@needs_peft
def test_without_an_alpha_the_change_counts_twice_at_every_rank():
    changes = []
    for finetune in ({"rank": 2}, {"rank": 2, "alpha": 4.0}, {"rank": 2, "alpha": 1.0}, {"rank": 4}):
        network = make(config_of("test_vit", targets="mlp", **finetune))
        layer = network.backbone.blocks[0].mlp.fc1
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(1.0)
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        change = plain_state(network)["backbone.blocks.0.mlp.fc1.weight"] - layer.base_layer.weight.detach()
        changes.append(float((change.double() / product.double()).median()))
    assert changes == pytest.approx([2, 2, 0.5, 2], rel=1e-3)


LAYERS = {  # of a network, those that a choice takes there
    ("test_vit", "attention"): {"attn.qkv", "attn.proj"},
    ("test_vit", "mlp"): {"mlp.fc1", "mlp.fc2"},
    ("test_vit", "all_linear"): {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    ("test_vit", "auto"): {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
    ("test_vit", "convolutions"): {"patch_embed.proj"},
    ("test_convnext", "auto"): {"mlp.fc1", "mlp.fc2"},
    ("test_convnext", "convolutions"): {"stem.0", "downsample.1"},
    ("test_resnet", "auto"): {"conv1.0", "conv1.3", "conv1.6", "conv1", "conv2", "conv3", "downsample.1"},
    ("test_efficientnet", "auto"): {
        "conv_stem",
        "conv",
        "conv_exp",
        "conv_pw",
        "conv_pwl",
        "conv_reduce",
        "conv_expand",
        "conv_head",
    },
}


@pytest.mark.parametrize(("name", "targets"), LAYERS)
def test_a_choice_takes_these_layers_and_no_grouped_convolution(name, targets):
    backbone = timm.create_model(name, num_classes=0)
    layers = chosen_layers(config_of(name, targets=targets), backbone=backbone, plan=make_plan(backbone))
    modules = dict(backbone.named_modules())
    assert {layer for layer in layers if getattr(modules[layer], "groups", 1) > 1} == set()
    expected = LAYERS[name, targets]
    assert {
        layer for layer in layers if not any(layer == end or layer.endswith(f".{end}") for end in expected)
    } == set()
    kind = {"all_linear": nn.Linear, "convolutions": nn.Conv2d}.get(targets)
    if kind is not None:
        dense = {key for key, one in modules.items() if type(one) is kind and getattr(one, "groups", 1) == 1}
        assert set(layers) == dense


def test_convolutions_are_taken_of_a_network_whose_widest_layer_is_a_linear_one_at_its_end():
    backbone = timm.create_model("cpubone_nano", num_classes=0)
    layers = chosen_layers(config_of("cpubone_nano"), backbone=backbone, plan=make_plan(backbone))
    assert all(type(backbone.get_submodule(layer)) is nn.Conv2d for layer in layers)


def test_layers_that_do_not_compute_as_torchs_own_are_passed_by():
    backbone = nn.Module()
    backbone.plain = nn.Conv2d(4, 4, 3)
    backbone.dilated = nn.Conv2d(4, 4, 3, dilation=2)
    backbone.reflecting = nn.Conv2d(4, 4, 3, padding_mode="reflect")
    backbone.grouped = nn.Conv2d(4, 4, 3, groups=2)
    backbone.padding_itself = timm.layers.Conv2dSame(4, 4, 3, 2)
    backbone.standardising = timm.layers.StdConv2d(4, 4, 3)
    backbone.twice = nn.Sequential(nn.Conv2d(4, 4, 3))
    backbone.again = nn.Sequential(backbone.twice[0])
    backbone.tied, backbone.other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    backbone.other.weight = backbone.tied.weight
    config = config_of("test_resnet", targets="convolutions")
    assert chosen_layers(config, backbone=backbone, plan=make_plan(backbone)) == ("plain",)


class ReadsItself(nn.Module):
    """Two layers, one of which it calls and one whose weights it reads, as BEiT does."""

    def __init__(self):
        super().__init__()
        self.called, self.read = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, images):
        return linear(self.called(images.mean(dim=(2, 3))), self.read.weight)


@needs_peft
def test_a_layer_whose_weights_are_read_past_it_gets_no_adapter_which_is_said(caplog):
    backbone = ReadsItself()
    with caplog.at_level(logging.WARNING):
        plan = add_adapters(backbone, plan=make_plan(backbone), config=config_of(), spec=SPEC)
    assert plan.light == {"called.lora_A.default.weight", "called.lora_B.default.weight"}
    assert "no adapter in 1 layers, their weights are read past it: read" in caplog.text
    with pytest.raises(UserError, match=r"finetune\.targets: .* has no layers of 'auto'"):
        add_adapters(ReadsItself(), plan=make_plan(ReadsItself()), config=config_of(depth=0.5), spec=SPEC)


@needs_peft
def test_a_layer_with_an_output_of_no_weight_gets_no_magnitude_to_divide_by(tmp_path, caplog):
    model = timm.create_model("test_resnet", num_classes=0)
    with torch.no_grad():
        model.layer4[0].conv2.weight[3] = 0
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = config_of("test_resnet", "dora", depth="stage3")
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"weights": str(tmp_path / "weights.pth")})}
    )
    with caplog.at_level(logging.WARNING):
        network = make(config)
    assert "some of their outputs have no weights: layer4.0.conv2" in caplog.text
    assert not any(name.startswith("layer4.0.conv2.") for name in network.plan.light)
    assert network(images_of(network, size=32)).isfinite().all()


@needs_peft
def test_magnitudes_of_convolutions_can_be_told_in_every_memory_format():
    network = make(config_of("test_resnet", "dora")).to(memory_format=torch.channels_last)
    keep_rows(network.backbone, plan=network.plan)
    images = images_of(network, size=32).to(memory_format=torch.channels_last)
    network.train()(images).sum().backward()


@pytest.mark.parametrize(
    ("name", "finetune", "depth"),
    [("test_resnet", {"targets": "attention"}, 0.0), ("test_vit", {"targets": "convolutions"}, 0.5)],
)
def test_nothing_to_adapt_is_one_line_that_names_the_choices(name, finetune, depth):
    backbone = timm.create_model(name, num_classes=0)
    with pytest.raises(
        UserError, match=rf"finetune.targets: {name} has no layers of .* there are {', '.join(TARGETS)}"
    ):
        chosen_layers(config_of(name, depth=depth, **finetune), backbone=backbone, plan=make_plan(backbone))


@pytest.mark.parametrize("strategy", ["lora", "adapter"])
@pytest.mark.parametrize("depth", [1.0, "stage4", []])
def test_adapters_under_a_frozen_backbone_are_refused(depth, strategy):
    with pytest.raises(
        ValueError, match="'lora', .* and 'prompt' have no layer to adapt, freeze.depth keeps the whole"
    ):
        config_of(depth=depth, strategy=strategy)


def test_without_the_library_a_network_is_not_begun(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"finetune.strategy: lora needs peft: pip install 'finetune-search\[peft\]'"):
        make(config_of())
    make(config_of(strategy="full"))
