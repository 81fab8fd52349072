import copy
from functools import cache

import pytest
import torch
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.chain import agrees, chain_of, make_chain, num_frozen_links
from trainable.model.layer_plan import LayerPlan, Unit
from trainable.model.network import create_network
from trainable.model.phase import phase
from trainable.randomness import seeded

BACKBONES = {
    "resnet18": 32,
    "mobilenetv3_small_100": 32,
    "tf_efficientnet_lite0": 32,
    "convnext_atto": 32,
    "vit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 64,
}
every_depth = pytest.mark.parametrize("depth", [0.25, 0.5, 0.75, 1.0])
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spec_of(name):
    return InputSpec(
        size=BACKBONES.get(name, 32), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0
    )


@cache
def built(name):
    """Weights all far enough from zero that no branch is invisible in the output."""
    config = TrialConfig.model_validate({"model": {"name": name, "weights": "random", "drop_path": drop_path(name)}})
    network = create_network(config, spec=spec_of(name), num_classes=3)
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * noise(*parameter.shape, seed=index))
    return network


def drop_path(name):
    return 0.3 if name in BACKBONES else 0.0


def network_of(name, depth, **sections):
    """A network in training, its images, its chain and how many links rest."""
    network = copy.deepcopy(built(name))
    config = TrialConfig.model_validate(
        {"model": {"name": name, "drop_path": drop_path(name)}, "freeze": {"depth": depth}, **sections}
    )
    now = phase(config, plan=network.plan, epoch=1)
    network.enter(now)
    chain = chain_of(config.model, spec=spec_of(name), flexible=False)
    images = noise(32, 3, spec_of(name).size, spec_of(name).size, seed=0)
    return network.train(), images, chain, num_frozen_links(chain, frozen=now.frozen)


def prefix_of(network, images, chain, links):
    with torch.no_grad():
        for link in network.links(chain)[:links]:
            images = link(images)
    return images


def trained_on(features, network):
    """One backward pass; gives the gradient of every parameter that has one."""
    (features * noise(*features.shape, seed=1)).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_depth
@every_backbone
def test_the_links_behind_the_frozen_ones_train_as_the_whole_backbone_does(name, depth):
    network, images, chain, links = network_of(name, depth)
    assert chain[links - 1].units_done == int(depth * len(network.plan.units))
    behind = copy.deepcopy(network)
    outputs = prefix_of(behind, images, chain, links)
    with seeded(5):
        whole = network.features(images)
        state = torch.get_rng_state()
    with seeded(5), behind.beginning_behind(links, chain=chain):
        features = behind.features(outputs)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(features, whole)
    if depth < 1:
        found = trained_on(features, behind)
        assert found
        assert equal(found, trained_on(whole, network))
    assert equal(behind.state_dict(), network.state_dict())


def test_stochastic_depth_was_at_work_behind_the_cut():
    network, images, chain, links = network_of("convnext_atto", 0.5)
    outputs = prefix_of(network, images, chain, links)
    found = []
    with network.beginning_behind(links, chain=chain):
        for seed in (5, 6):
            with seeded(seed):
                found.append(network.features(outputs))
    assert not torch.equal(*found)


@every_backbone
def test_whatever_the_batches_an_image_has_the_same_outputs(name):
    # From 16 images on torch's convolutions compute an image the same in every batch.
    network, images, chain, links = network_of(name, 0.75)
    outputs = prefix_of(network.eval(), images, chain, links)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    for rows in order.split(16):
        assert torch.equal(prefix_of(network, images[rows], chain, links), outputs[rows])


def test_a_copy_computes_with_its_own_weights():
    network, images, chain, links = network_of("resnet18", 0.5)
    outputs = prefix_of(network.eval(), images, chain, links)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    assert not torch.equal(prefix_of(other, images, chain, links), outputs)
    assert torch.equal(prefix_of(network, images, chain, links), outputs)
    assert agrees(other.backbone, other.links(chain), images[:2])


def test_every_image_size_that_a_flexible_transformer_takes_has_its_links():
    config = TrialConfig.model_validate({"model": {"name": "vit_tiny_patch16_224", "weights": "random"}})
    chain = chain_of(config.model, spec=spec_of("vit_tiny_patch16_224"), flexible=True)
    assert [link.units_done for link in chain] == list(range(1, 14))


def test_the_work_of_the_links_is_all_of_the_backbones():
    chain = network_of("resnet18", 0.5)[2]
    assert sum(link.work for link in chain) == pytest.approx(1.0)
    # 7x7 convolution of 3 to 64 channels at half the side, of the whole network's 1.81 G multiplications at 224 pixels.
    assert chain[0].work == pytest.approx(0.118 / 1.814, rel=0.02)


def test_a_link_names_the_tensors_it_computes_with():
    network, _, chain, _ = network_of("resnet18", 0.5)
    named = [name for link in chain for name in link.tensors]
    assert sorted(named) == sorted(network.backbone.state_dict())
    assert {"bn1.running_mean", "conv1.weight"} <= set(chain[0].tensors)


def test_densely_connected_layers_are_cut_where_one_tensor_passes():
    _, _, chain, links = network_of("densenet121", 0.9)
    assert len(chain) < 10
    assert 0 < links < len(chain)


class Plain(nn.Module):
    """Three convolutions and a mean; what is awkward about it is in the subclasses."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, images):
        return self.third(self.second(self.first(images))).mean((2, 3))


class AddedAtTheEnd(Plain):
    def forward(self, images):
        return (self.third(self.second(self.first(images))) + images).mean((2, 3))


class UsedBeforeItsTurn(Plain):
    def forward(self, images):
        return super().forward(images * self.third.bias.sum())


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


class Branch(Plain):
    def forward(self, images):
        branch = self.second(self.first(images))
        return (self.third(branch) + branch).mean((2, 3))


class TwiceTheSameActivation(Plain):
    def __init__(self):
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, images):
        return self.activation(self.third(self.activation(self.second(self.first(images))))).mean((2, 3))


PLAN = LayerPlan(tuple(Unit(n, "stem", (f"{n}.weight", f"{n}.bias")) for n in ("first", "second", "third")))


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        (Plain, [1, 2, 3]),
        (AddedAtTheEnd, [3]),
        (UsedBeforeItsTurn, [3]),
        (ComputedFromThePrefix, [1, 2, 3]),
        (Branch, [1, 2, 3]),
        (TwiceTheSameActivation, [1, 2, 3]),
    ],
)
def test_a_backbone_is_cut_where_everything_behind_comes_from_one_tensor(kind, ends):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = kind()
    chain = make_chain(backbone, plan=PLAN, images=noise(2, 3, 8, 8, seed=0))
    assert [link.units_done for link in chain] == ends
    assert agrees(backbone, [link.module(backbone) for link in chain], noise(2, 3, 8, 8, seed=1))


class ByItsNumbers(Plain):
    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


class OtherwiseInTraining(Plain):
    def forward(self, images):
        return super().forward(nn.functional.dropout(images, 1e-9, training=self.training))


@pytest.mark.parametrize("kind", [ByItsNumbers, OtherwiseInTraining])
def test_code_that_cannot_be_followed_once_for_all_is_not_cut(kind):
    with pytest.raises(Exception, match=r"control flow|in training"):
        make_chain(kind(), plan=PLAN, images=noise(2, 3, 8, 8, seed=0))


def test_what_the_meta_device_cannot_show_is_said_and_not_cut(caplog):
    config = TrialConfig.model_validate({"model": {"name": "vit_tiny_patch16_dinov3_qkvb", "weights": "random"}})
    assert chain_of(config.model, spec=spec_of("vit_tiny_patch16_dinov3_qkvb"), flexible=False) == ()
    assert "vit_tiny_patch16_dinov3_qkvb cannot be cut behind its frozen layers" in caplog.text
