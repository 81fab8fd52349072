"""Backbones that end behind an earlier stage, of several families."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.errors import UserError
from trainable.model import cut
from trainable.model.backbone import create_backbone, input_spec
from trainable.model.chain import agrees, chain_of
from trainable.model.network import check_network, create_network
from trainable.model.stages import stage_ends
from trainable.training.trained import network_state

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


def built(name, *, until=None, weights="random", device="cpu", seed=0):
    config = ModelConfig(name=name, weights=weights, until=until)
    spec = input_spec(config, image_size=SIZE, channels=3)
    backbone, plan = create_backbone(config, spec=spec, generator_seed=seed, device=device)
    return backbone.eval(), plan


def some_images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("until", ["stage1", "stage3"])
@pytest.mark.parametrize("name", BACKBONES)
def test_its_features_are_the_averaged_maps_of_the_stage_in_the_whole_network(name, until):
    whole, plan = built(name)
    index = stage_ends(whole, plan=plan)[until].index
    ended, left = built(name, until=until)
    images = some_images()
    with torch.no_grad():
        maps = whole.forward_intermediates(images, indices=[index], output_fmt="NCHW", intermediates_only=True)[-1]
        torch.testing.assert_close(ended(images), maps.mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)
        assert torch.equal(copy.deepcopy(ended)(images), ended(images))
    names = dict(whole.named_parameters())
    assert all(torch.equal(parameter, names[key]) for key, parameter in ended.named_parameters())
    assert len(list(ended.parameters())) < len(names)
    assert sorted(left.unit_of()) == sorted(key for key, _ in ended.named_parameters())
    assert [unit.stage for unit in left.units] == [unit.stage for unit in plan.units[: len(left.units)]]
    assert left.units[-1].stage == until


@pytest.mark.parametrize("name", BACKBONES)
def test_it_is_a_chain_of_links_as_the_whole_one_is(name):
    config = ModelConfig(name=name, weights="random", until="stage3")
    chain = chain_of(config, spec=input_spec(config, image_size=SIZE, channels=3), flexible=False)
    backbone, plan = built(name, until="stage3")
    assert len(chain) > 3
    assert chain[-1].units_done == len(plan.units)
    assert agrees(backbone, [link.module(backbone) for link in chain], some_images())


def test_its_features_are_those_that_the_probe_of_the_stage_sees(make_config):
    whole = frozen_features(make_config(model={"name": "resnet10t"}))
    ended = frozen_features(make_config(model={"name": "resnet10t", "until": "stage3"}))
    assert ended.stages == ("stage1", "stage2", "stage3", POOLED)
    for stage in ("stage2", "stage3"):
        np.testing.assert_allclose(ended.of(stage, split="val"), whole.of(stage, split="val"), atol=1e-5)
    np.testing.assert_allclose(ended.of(POOLED, split="train"), whole.of("stage3", split="train"), atol=1e-5)


def network_until(until, *, weights="random", name="test_resnet"):
    config = TrialConfig.model_validate(
        {"model": {"name": name, "weights": str(weights), "until": until}, "data": {"image_size": SIZE}}
    )
    return create_network(config, spec=input_spec(config.model, image_size=SIZE, channels=3), num_classes=2)


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("of", [None, "stage2"])
def test_weights_may_be_of_the_whole_network_or_of_one_that_ended_there(name, of, tmp_path):
    source = network_until(of, name=name)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)
    save_file(network_state(source), tmp_path / "own.safetensors")
    loaded = dict(network_until("stage2", name=name, weights=tmp_path / "own.safetensors").backbone.named_parameters())
    theirs = dict(source.backbone.named_parameters())
    assert loaded
    assert all(torch.equal(parameter, theirs[key]) for key, parameter in loaded.items())


def test_weights_that_end_too_early_are_of_another_architecture(tmp_path):
    save_file(network_state(network_until("stage1")), tmp_path / "own.safetensors")
    for until in (None, "stage3"):
        with pytest.raises(
            UserError, match=r"model.weights: .*own.safetensors is of another architecture: \d+ tensors missing"
        ):
            network_until(until, weights=tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("name", "until", "line"),
    [
        ("mvitv2_tiny", "stage1", "model.until: 'mvitv2_tiny' shows no 'stage1'; there are none"),
        ("levit_128s", "stage3", "model.until: 'levit_128s' shows no 'stage3'; there are stage1, stage2, stage4"),
    ],
)
def test_a_stage_that_is_not_shown_is_one_line_with_those_that_are(name, until, line):
    with pytest.raises(UserError) as caught:
        check_network(TrialConfig.model_validate({"model": {"name": name, "weights": "random", "until": until}}))
    assert str(caught.value) == line


def test_a_backbone_that_cannot_be_cut_is_one_line():
    whole, plan = built("test_resnet")
    with pytest.raises(
        UserError, match="model.until: 'mine' cannot be cut behind a stage; leave it null, or take another"
    ):
        cut.cut_at(torch.nn.Sequential(whole), plan=plan, stage="stage1", name="mine")
