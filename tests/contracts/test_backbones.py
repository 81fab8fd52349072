"""What every family of backbones keeps: its layers are planned, frozen, trained and saved alike."""

from functools import cache
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.backbone import plan_of
from trainable.model.layer_plan import STAGES
from trainable.model.network import create_network
from trainable.randomness import seeded
from trainable.training.checkpoint import Counters, load_checkpoint, save_checkpoint
from trainable.training.optimizer import create_optimizer

# One small architecture of each family, with the side of the smallest images it takes.
FAMILIES = {
    "test_resnet": 32,
    "test_efficientnet": 32,
    "test_convnext": 32,
    "test_vit": 32,
    "swin_tiny_patch4_window7_224": 64,
    "mobilenetv3_small_050": 32,
}
# Plans are made without weights, so that large ones cost nothing.
PLANNED = [
    *FAMILIES,
    "resnet18",
    "vit_tiny_patch16_224",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "mobilenetv3_small_100",
    "vgg11_bn",
    "densenet121",
    "caformer_s18",
]


def config_of(name, depth):
    return TrialConfig.model_validate({"model": {"name": name, "weights": "random"}, "freeze": {"depth": depth}})


def make(name, *, depth=0.0):
    spec = InputSpec(size=FAMILIES[name], mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
    network = create_network(config_of(name, depth), spec=spec, num_classes=3)
    nn.init.normal_(network.head[-1].weight, std=0.1, generator=torch.Generator().manual_seed(2))  # it starts at 0
    return network


def images_of(name, *, seed=0, count=4):
    return torch.randn(count, 3, FAMILIES[name], FAMILIES[name], generator=torch.Generator().manual_seed(seed))


def three_steps(network, name, optimizer):
    network.train()
    for step in range(3):
        with seeded(0, "dropout", step):  # of stochastic depth, which some architectures have
            loss = nn.functional.cross_entropy(network(images_of(name, seed=step)), torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@cache
def classifier_of(name):
    """Names of all parameters of an architecture and of those of its classifier."""
    with torch.device("meta"):
        model = timm.create_model(name)
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    names = {key: id(parameter) in head for key, parameter in model.named_parameters()}
    return set(names), {key for key, is_head in names.items() if is_head}


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_holds_every_parameter_but_the_classifiers_exactly_once(name):
    every, head = classifier_of(name)
    planned = [parameter for unit in plan_of(name).units for parameter in unit.parameters]
    assert sorted(planned) == sorted(every - head)


@pytest.mark.parametrize("name", PLANNED)
def test_stages_go_from_the_stem_to_the_last_and_never_back(name):
    stages = [STAGES.index(unit.stage) for unit in plan_of(name).units]
    assert stages == sorted(stages)
    assert set(stages) == set(range(5))


@pytest.mark.parametrize("name", PLANNED)
def test_freezing_grows_with_depth_from_nothing_to_everything(name):
    plan = plan_of(name)
    for depths in ([step / 20 for step in range(21)], STAGES):
        frozen = [plan.frozen(depth) for depth in depths]
        assert all(before <= after for before, after in pairwise(frozen))
        assert frozen[-1] == frozenset(range(len(plan.units)))
    assert plan.frozen(0.0) == frozenset()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_depth_0_trains_everything_and_depth_1_the_head_alone(name, depth):
    network = make(name, depth=depth)
    trains = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    every = {key for key, _ in network.named_parameters()}
    assert trains == (every if depth == 0 else {key for key in every if key.startswith("head.")})


@pytest.mark.parametrize("name", FAMILIES)
def test_without_dropout_and_stochastic_depth_a_pass_in_training_is_the_same_again(name):
    network = make(name).train()
    assert torch.equal(network(images_of(name)), network(images_of(name)))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_frozen_layers_keep_weights_and_buffers_to_the_bit_and_the_others_move(name, depth):
    network = make(name, depth=depth)
    units = [network.plan.units[index] for index in network.plan.frozen(depth)]
    frozen = {f"backbone.{parameter}".rpartition(".")[0] for unit in units for parameter in unit.parameters}
    assert frozen
    before = {key: value.clone() for key, value in network.state_dict().items()}
    three_steps(network, name, torch.optim.SGD(network.parameters(), lr=0.1))
    parameters = dict(network.named_parameters())
    for key, value in network.state_dict().items():
        if key.rpartition(".")[0] in frozen:
            assert torch.equal(value, before[key]), key
        elif key in parameters and parameters[key].grad is not None and parameters[key].grad.abs().sum() > 0:
            assert not torch.equal(value, before[key]), key
    assert not torch.equal(network.head[-1].weight, before["head.1.weight"])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_a_checkpoint_of_what_has_trained_is_the_whole_network_again(name, depth, tmp_path):
    network = make(name, depth=depth)
    optimizer = create_optimizer(network, config=config_of(name, depth).optimizer)
    three_steps(network, name, optimizer)
    moved = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    save_checkpoint(
        tmp_path / "one",
        network=network,
        moved=moved,
        average=None,
        optimizer=optimizer,
        counters=Counters(1, {1: 0.5}, {}),
        results={},
    )
    other = make(name, depth=depth)
    fresh = create_optimizer(other, config=config_of(name, depth).optimizer)
    load_checkpoint(tmp_path / "one", network=other, moved=lambda epoch: moved, average=None, optimizer=fresh)
    images = images_of(name, seed=9)
    assert torch.equal(other.eval()(images), network.eval()(images))
    for one, again in ((network, optimizer), (other, fresh)):
        three_steps(one, name, again)
    assert torch.equal(other.eval()(images), network.eval()(images))
