import copy
from functools import cache

import pytest
import torch
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.layer_plan import LayerPlan, Unit
from trainable.model.network import create_network
from trainable.model.phase import phase
from trainable.model.prefix_cut import find_cut, from_prefix, prefix_output
from trainable.randomness import seeded

BACKBONES = {
    "resnet18": 32,
    "mobilenetv3_small_100": 32,
    "tf_efficientnet_lite0": 32,
    "convnext_atto": 32,
    "vit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 64,
}
DEPTHS = (0.25, 0.5, 0.75, 1.0)
every_cut = pytest.mark.parametrize("depth", DEPTHS)
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@cache
def built(name):
    """Weights all far enough from zero that no branch is invisible in the output."""
    size = BACKBONES.get(name, 32)
    drop_path = 0.3 if name in BACKBONES else 0
    config = TrialConfig.model_validate({"model": {"name": name, "weights": "random", "drop_path": drop_path}})
    network = create_network(
        config,
        spec=InputSpec(size=size, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0),
        num_classes=3,
    )
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * noise(*parameter.shape, seed=index))
    return network


def network_of(name, depth, **sections):
    network = copy.deepcopy(built(name))
    config = TrialConfig.model_validate({"model": {"name": name}, "freeze": {"depth": depth}, **sections})
    now = phase(config, plan=network.plan, epoch=1)
    network.enter(now)
    images = noise(32, 3, BACKBONES.get(name, 32), BACKBONES.get(name, 32), seed=0)
    return network.train(), now.frozen, images


@cache
def cut_of(name, depth):
    network, frozen, images = network_of(name, depth)
    return find_cut(network.backbone, plan=network.plan, frozen=frozen, images=images)


def stored_of(network, images, cut):
    with torch.no_grad():
        return prefix_output(network.backbone, images, cut=cut)


def trained_on(features, network):
    """One backward pass; gives the gradient of every parameter that has one."""
    (features * noise(*features.shape, seed=1)).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_cut
@every_backbone
def test_the_suffix_of_the_prefix_is_the_backbone_whatever_the_batches(name, depth):
    # Exact, since from 16 images on torch's convolutions compute an image the same in every batch.
    network, _, images = network_of(name, depth)
    cut = cut_of(name, depth)
    stored = stored_of(network.eval(), images, cut)
    assert stored.shape == (32, *cut.shape)
    assert stored.dtype == torch.float32
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    for rows in order.split(16):
        with torch.no_grad():
            assert torch.equal(from_prefix(network.backbone, stored[rows], cut=cut), network.backbone(images[rows]))


@every_cut
@every_backbone
def test_the_suffix_trains_as_in_the_whole_backbone(name, depth):
    network, _, images = network_of(name, depth)
    cut = cut_of(name, depth)
    stored = stored_of(network, images, cut)
    cut_off = copy.deepcopy(network)
    with seeded(5):
        whole = network.backbone(images[:16])
        state = torch.get_rng_state()
    with seeded(5):
        features = from_prefix(cut_off.backbone, stored[:16], cut=cut)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(features, whole)
    if depth < 1:
        found = trained_on(features, cut_off)
        assert found
        assert equal(found, trained_on(whole, network))
    assert equal(cut_off.state_dict(), network.state_dict())


def test_stochastic_depth_was_at_work_in_the_suffix():
    network, _, images = network_of("convnext_atto", 0.5)
    cut = cut_of("convnext_atto", 0.5)
    stored = stored_of(network, images, cut)
    with seeded(5):
        one = from_prefix(network.backbone, stored, cut=cut)
    with seeded(6):
        assert not torch.equal(from_prefix(network.backbone, stored, cut=cut), one)


@every_backbone
def test_a_cut_fits_a_copy_with_other_weights(name):
    network, _, images = network_of(name, 0.5)
    cut = cut_of(name, 0.5)
    other = copy.deepcopy(network).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
        stored = prefix_output(other.backbone, images, cut=cut)
        assert torch.equal(from_prefix(other.backbone, stored, cut=cut), other.backbone(images))
        assert not torch.equal(stored, prefix_output(network.eval().backbone, images, cut=cut))


@pytest.mark.parametrize("depth", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_the_cut_keeps_layout_and_precision(name, depth):
    network, frozen, images = network_of(name, depth)
    network, images = (
        network.to(memory_format=torch.channels_last),
        images.contiguous(memory_format=torch.channels_last),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cut = find_cut(network.backbone, plan=network.plan, frozen=frozen, images=images)
        stored = stored_of(network.eval(), images, cut)
        assert stored.is_contiguous()
        with torch.no_grad():
            features, whole = from_prefix(network.backbone, stored, cut=cut), network.backbone(images)
    assert torch.equal(features, whole)
    assert features.dtype == whole.dtype


@every_cut
def test_densely_connected_layers_are_cut_where_one_tensor_passes(depth):
    network, _, images = network_of("densenet121", depth)
    cut = cut_of("densenet121", depth)
    assert cut.entry in ("features.denseblock2", "features.denseblock3", "features.denseblock4", "")
    with torch.no_grad():
        network.eval()
        stored = prefix_output(network.backbone, images, cut=cut)
        assert torch.equal(from_prefix(network.backbone, stored, cut=cut), network.backbone(images))


def test_nothing_behind_the_cut_is_computed_for_the_prefix_and_nothing_before_it_for_the_suffix():
    network, _, images = network_of("resnet18", 0.5)
    cut = cut_of("resnet18", 0.5)
    done = []
    for name, module in network.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            # A stand-in's output is one number seen everywhere.
            module.register_forward_hook(lambda *call, name=name: done.append(name) if call[2].stride(0) else None)
    every = [name for name, module in network.backbone.named_modules() if isinstance(module, nn.Conv2d)]
    stored = stored_of(network, images, cut)
    prefix, done[:] = list(done), []
    from_prefix(network.backbone, stored, cut=cut)
    assert sorted(prefix + done) == sorted(every)
    assert cut.entry == "layer2.1"
    assert not any(name.startswith(("layer2.1", "layer3", "layer4")) for name in prefix)


def test_only_the_leading_frozen_units_are_in_the_prefix():
    network, _, images = network_of("resnet18", 0.5)
    assert find_cut(network.backbone, plan=network.plan, frozen=frozenset({1, 2, 8}), images=images) is None
    cut = find_cut(network.eval().backbone, plan=network.plan, frozen=frozenset({0, 1, 8}), images=images)
    names = {name for unit in network.plan.units[:2] for name in unit.parameters}
    assert names <= set(cut.tensors)
    assert {"bn1.running_mean", "layer1.0.bn1.running_var"} <= set(cut.tensors)
    assert not any(name.startswith(("layer1.1", "layer2", "layer3", "layer4")) for name in cut.tensors)


def test_norms_that_move_in_the_prefix_forbid_the_cut():
    network, frozen, images = network_of("resnet18", 0.5, freeze={"depth": 0.5, "bn": "train_stats"})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert find_cut(network.backbone, plan=network.plan, frozen=frozen, images=images) is None
    assert equal(before, network.state_dict())


class Plain(nn.Module):
    """Three convolutions and a mean; what is awkward about it is in the subclasses."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.dropout = nn.Dropout(1e-9)  # hits nothing, but draws

    def forward(self, images):
        return self.third(self.second(self.first(images))).mean((2, 3))


class AddedAtTheEnd(Plain):
    def forward(self, images):
        return (self.third(self.second(self.first(images))) + images).mean((2, 3))


class AddedFaintly(Plain):
    def forward(self, images):
        return super().forward(images) + 1e-15 * images.mean()


class KeptOnItself(Plain):
    def forward(self, images):
        self.first.register_forward_hook(self.keep)
        return (self.third(self.second(self.first(images))) + self.kept).mean((2, 3))

    def keep(self, _module, _args, output):
        self.kept = output.detach().mean(0)


class UsedBeforeItsTurn(Plain):
    def forward(self, images):
        return super().forward(images * self.third.bias.sum())


class RandomInThePrefix(Plain):
    def forward(self, images):
        return super().forward(self.dropout(images))


class SecondArgument(nn.Conv2d):
    def forward(self, images, scale):
        return super().forward(images) * scale


class ComputedFromThePrefix(Plain):
    def __init__(self):
        super().__init__()
        self.second = SecondArgument(3, 3, 3, padding=1)

    def forward(self, images):
        start = self.first(images)
        return self.third(self.second(start, scale=start.mean())).mean((2, 3))


class ComputedFromTheShape(ComputedFromThePrefix):
    def forward(self, images):
        start = self.first(images)
        return self.third(self.second(start, start.shape[-1])).mean((2, 3))


class TwiceTheSameActivation(Plain):
    def __init__(self):
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, images):
        return self.activation(self.third(self.activation(self.second(self.first(images))))).mean((2, 3))


def awkward_cut(kind, *, frozen=frozenset({0})):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = kind()
    units = tuple(Unit(n, "stem", (f"{n}.weight", f"{n}.bias")) for n in ("first", "second", "third"))
    images = noise(3, 3, 8, 8, seed=0)
    return backbone, images, find_cut(backbone, plan=LayerPlan(units), frozen=frozen, images=images)


@pytest.mark.parametrize(
    "kind",
    [AddedAtTheEnd, AddedFaintly, KeptOnItself, UsedBeforeItsTurn, RandomInThePrefix, ComputedFromThePrefix],
)
def test_a_backbone_that_would_get_wrong_numbers_is_not_cut(kind, caplog):
    backbone, images, cut = awkward_cut(kind)
    assert cut is None
    assert kind.__name__ in caplog.text
    assert backbone.training
    assert backbone(images).requires_grad


@pytest.mark.parametrize("kind", [Plain, ComputedFromTheShape, TwiceTheSameActivation])
def test_what_does_not_come_from_the_prefix_does_not_hinder_the_cut(kind):
    backbone, images, cut = awkward_cut(kind, frozen=frozenset({0, 1} if kind is TwiceTheSameActivation else {0}))
    stored = prefix_output(backbone, images, cut=cut)
    assert cut.entry == ("third" if kind is TwiceTheSameActivation else "second")
    assert torch.equal(from_prefix(backbone, stored, cut=cut), backbone(images))


def test_where_it_cannot_be_cut_behind_all_frozen_units_it_is_cut_before():
    class Branch(Plain):
        def forward(self, images):
            start = self.first(images)
            branch = self.second(start)
            return (self.third(branch) + branch).mean((2, 3))

    backbone, images, cut = awkward_cut(Branch, frozen=frozenset({0, 1}))
    assert cut.entry == "second"
    assert cut.tensors == ("first.weight", "first.bias")
    assert torch.equal(from_prefix(backbone, prefix_output(backbone, images, cut=cut), cut=cut), backbone(images))
