"""Backbones whose features are those of several stages, of several families."""

import copy

import pytest
import torch

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.errors import UserError
from trainable.model.backbone import create_backbone, input_spec
from trainable.model.chain import agrees, chain_of, num_frozen_links
from trainable.model.network import check_network, create_network
from trainable.model.stages import stage_ends

torch.set_num_threads(1)

BACKBONES = (
    "resnet18",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_100",
)
SIZE = 64


def built(name, **settings):
    config = ModelConfig(name=name, weights="random", **settings)
    spec = input_spec(config, image_size=SIZE, channels=3)
    backbone, plan = create_backbone(config, spec=spec, generator_seed=0)
    return backbone.eval(), plan


def some_images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def statistics(backbone, *, indices):
    maps = backbone.forward_intermediates(some_images(), indices=indices, output_fmt="NCHW", intermediates_only=True)
    both = [(each.mean(dim=(2, 3)), each.std(dim=(2, 3), correction=0)) for each in maps]
    return torch.cat([values for pair in both for values in pair], dim=1)


@pytest.mark.parametrize("name", BACKBONES)
def test_its_features_are_the_own_ones_and_mean_and_deviation_of_the_last_two_stages(name):
    own, plan = built(name)
    pooled, same = built(name, pool="stages")
    ends = [end.index for end in stage_ends(own, plan=plan).values()]
    with torch.no_grad():
        features, wanted = pooled(some_images()), own(some_images())
        assert torch.equal(features[:, : wanted.shape[1]], wanted)
        torch.testing.assert_close(
            features[:, wanted.shape[1] :], statistics(own, indices=ends[-2:]), atol=2e-3, rtol=1e-4
        )
        assert torch.equal(copy.deepcopy(pooled)(some_images()), features)
    assert plan == same
    assert list(own.state_dict()) == list(pooled.state_dict())


@pytest.mark.parametrize("name", BACKBONES)
def test_one_that_ends_behind_a_stage_has_those_of_the_last_two_there(name):
    own, plan = built(name)
    ends = stage_ends(own, plan=plan)
    cut, _ = built(name, until="stage3", pool="stages")
    indices = [end.index for stage, end in ends.items() if stage <= "stage3"][-2:]
    with torch.no_grad():
        torch.testing.assert_close(cut(some_images()), statistics(own, indices=indices), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_it_is_a_chain_that_can_begin_behind_every_link_up_to_the_first_of_these_stages(name):
    config = ModelConfig(name=name, weights="random", pool="stages")
    chain = chain_of(config, spec=input_spec(config, image_size=SIZE, channels=3), flexible=False)
    backbone, plan = built(name, pool="stages")
    assert agrees(backbone, [link.module(backbone) for link in chain], some_images())
    assert chain[-1].units_done == len(plan.units)
    ends = list(stage_ends(backbone, plan=plan).values())
    before = num_frozen_links(chain, frozen=frozenset(range(ends[-2].unit + 1)))
    assert chain[before - 1].units_done == ends[-2].unit + 1
    assert before == len(chain) - 1


def test_what_lies_before_these_stages_is_kept_for_both_kinds_of_features():
    name = "tf_efficientnet_lite0"
    chains = []
    for kind in ("own", "stages"):
        config = ModelConfig(name=name, weights="random", pool=kind)
        chains.append(chain_of(config, spec=input_spec(config, image_size=SIZE, channels=3), flexible=False))
    own, pooled = ([str(link.graph) for link in chain] for chain in chains)
    assert own[: len(pooled) - 1] == pooled[:-1]


def test_a_probe_sees_the_features_that_the_head_is_given(make_config):
    config = make_config(model={"name": "resnet10t", "pool": "stages"})
    spec = input_spec(config.model, image_size=config.data.image_size, channels=3)
    network = create_network(config, spec=spec, num_classes=2)
    features = frozen_features(config)
    assert features.of(POOLED, split="val").shape[1] == network.width
    assert network.width == 512 + 2 * (256 + 512)


def test_what_is_constant_over_the_image_has_a_gradient_that_is_a_number():
    backbone, _ = built("resnet18", pool="stages")
    images = torch.zeros(2, 3, SIZE, SIZE)
    backbone(images).sum().backward()
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in backbone.parameters() if parameter.grad is not None
    )


def test_an_architecture_that_shows_no_stages_is_one_line():
    with pytest.raises(UserError) as caught:
        check_network(
            TrialConfig.model_validate({"model": {"name": "mvitv2_tiny", "weights": "random", "pool": "stages"}})
        )
    assert str(caught.value) == "model.pool: 'mvitv2_tiny' shows no stages; leave it own, or take another model.name"
