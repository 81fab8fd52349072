"""Backbones that give what they make of each position, and class tokens beside the mean of patches, of several families."""

import copy

import pytest
import torch

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.errors import UserError
from trainable.model.backbone import create_backbone, input_spec
from trainable.model.chain import agrees, chain_of
from trainable.model.network import check_network, create_network
from trainable.model.phase import phase
from trainable.training.optimizer import parameter_groups

torch.set_num_threads(1)

BACKBONES = (  # that average: maps with their channels before or behind, tokens; with a norm or a layer behind that, or nothing
    "resnet18",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "vit_relpos_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_100",
)
BY_TOKEN = ("vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "cait_xxs24_224")
LEARNED = ("gem", "attentive")
SIZE = {"vit_small_patch14_reg4_dinov2": 56, "cait_xxs24_224": 224}


def built(name, **settings):
    config = ModelConfig(name=name, weights="random", **settings)
    spec = input_spec(config, image_size=SIZE.get(name, 64), channels=3)
    backbone, plan = create_backbone(config, spec=spec, generator_seed=0)
    return backbone.eval(), plan


def some_images(name="any"):
    size = SIZE.get(name, 64)
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def network_of(name, **model):
    config = TrialConfig.model_validate(
        {"data": {"image_size": SIZE.get(name, 64)}, "model": {"name": name, "weights": "random"} | model}
    )
    spec = input_spec(config.model, image_size=config.data.image_size, channels=3)
    return create_network(config, spec=spec, num_classes=2).eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_the_mean_of_the_positions_makes_the_backbones_own_features(name):
    own, plan = built(name)
    shown, same = built(name, pool="gem")
    images = some_images()
    with torch.no_grad():
        outputs = shown(images)
        assert outputs.ndim == 3
        torch.testing.assert_close(shown.finish(outputs.mean(dim=1)), own(images), atol=1e-5, rtol=1e-5)
        assert torch.equal(copy.deepcopy(shown)(images), outputs)
    assert plan == same
    assert list(own.state_dict()) == list(shown.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_of_one_that_ends_behind_a_stage_the_mean_is_what_it_gives_else(name):
    own, _ = built(name, until="stage3")
    shown, _ = built(name, until="stage3", pool="gem")
    with torch.no_grad():
        outputs = shown(some_images())
        assert torch.equal(shown.finish(outputs.mean(dim=1)), outputs.mean(dim=1))
        torch.testing.assert_close(outputs.mean(dim=1), own(some_images()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_an_attentive_pool_begins_with_the_features_of_a_backbone_that_averages(name):
    own, attentive = network_of(name), network_of(name, pool="attentive")
    assert own.width == attentive.width
    with torch.no_grad():
        torch.testing.assert_close(attentive.features(some_images()), own.features(some_images()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BY_TOKEN)
def test_the_class_token_stands_before_the_mean_of_the_patches(name):
    own, _ = built(name)
    joined, _ = built(name, pool="token_mean")
    images = some_images(name)
    with torch.no_grad():
        features, wanted, tokens = joined(images), own(images), own.forward_features(images)
    assert torch.equal(features[:, : wanted.shape[1]], wanted)
    torch.testing.assert_close(features[:, wanted.shape[1] :], tokens[:, own.num_prefix_tokens :].mean(dim=1))
    assert torch.equal(copy.deepcopy(joined)(images), features)


@pytest.mark.parametrize(
    ("name", "count"), [("vit_tiny_patch16_224", 1), ("vit_tiny_patch16_224", 4), ("vit_small_patch14_reg4_dinov2", 3)]
)
def test_class_tokens_of_the_last_blocks_stand_before_the_mean_of_the_last_patches(name, count):
    own, plan = built(name)
    joined, same = built(name, pool="blocks", pool_blocks=count)
    images = some_images(name)
    with torch.no_grad():
        shown = own.get_intermediate_layers(images, n=count, return_prefix_tokens=True, norm=True)
        wanted = [prefix[:, 0] for _, prefix in shown] + [shown[-1][0].mean(dim=1)]
        features = joined(images)
        torch.testing.assert_close(features, torch.cat(wanted, dim=1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features[:, -2 * own.num_features : -own.num_features], own(images))
    assert features.shape == (2, (count + 1) * own.num_features)
    assert plan == same


def test_a_norm_behind_the_pooling_is_that_of_class_token_and_mean_alike():
    own, _ = built("beit_base_patch16_224")
    joined, _ = built("beit_base_patch16_224", pool="token_mean")
    with torch.no_grad():
        features, tokens = joined(some_images()), own.forward_features(some_images())
        torch.testing.assert_close(features[:, :768], own.fc_norm(tokens[:, 0]))
        torch.testing.assert_close(features[:, 768:], own(some_images()))
        of_blocks = built("beit_base_patch16_224", pool="blocks", pool_blocks=1)[0](some_images())
        torch.testing.assert_close(of_blocks, features)


@pytest.mark.parametrize(
    ("name", "pool"),
    [*((name, "gem") for name in BACKBONES), *(("vit_tiny_patch16_224", pool) for pool in ("token_mean", "blocks"))],
)
def test_it_is_a_chain_whose_first_links_are_those_of_the_backbones_own_features(name, pool):
    """So what is kept of frozen layers is kept for every pool; a ViT's own way gives its blocks an empty mask beside that."""
    chains = []
    for kind in ("own", pool):
        config = ModelConfig(name=name, weights="random", pool=kind)
        spec = input_spec(config, image_size=SIZE.get(name, 64), channels=3)
        chains.append(chain_of(config, spec=spec, flexible=False))
    own, shown = chains
    backbone, _ = built(name, pool=pool)
    assert agrees(backbone, [link.module(backbone) for link in shown], some_images(name))
    assert len(shown) > 3
    own, shown = ([str(link.graph) for link in chain] for chain in chains)
    assert own[: len(shown) - 1] == shown[:-1] or name.startswith("vit_")


@pytest.mark.parametrize("pool", LEARNED)
def test_a_pools_weights_train_with_the_head_at_its_rate_while_all_else_rests(pool):
    config = TrialConfig.model_validate(
        {
            "data": {"image_size": 32},
            "model": {"name": "test_resnet", "weights": "random", "pool": pool},
            "freeze": {"depth": 1.0},
            "optimizer": {"lr": 0.01, "backbone_multiplier": 0.1},
        }
    )
    network = create_network(config, spec=input_spec(config.model, image_size=32, channels=3), num_classes=2)
    names = network.trainable(phase(config, plan=network.plan, epoch=1))
    (weights,) = [name for name, _ in network.named_parameters() if name.startswith("pool.")]
    assert names == {"head.1.weight", "head.1.bias", weights}
    (group,) = [each for each in parameter_groups(network, config=config.optimizer) if each["name"].startswith("pool")]
    assert group["peak_lr"] == 0.01
    assert group["weight_decay"] == 0


@pytest.mark.parametrize("pool", ["gem", "attentive"])
def test_a_probe_sees_the_features_that_the_head_is_given(make_config, pool):
    config = make_config(model={"name": "resnet10t", "pool": pool}, data={"image_size": 64})
    features = frozen_features(config)
    network = network_of("resnet10t", pool=pool)
    assert features.of(POOLED, split="val").shape[1] == network.width == 512
    own = frozen_features(make_config(model={"name": "resnet10t"}, data={"image_size": 64})).of(POOLED, split="val")
    assert (abs(features.of(POOLED, split="val") - own).max() > 1e-3) == (pool == "gem")


@pytest.mark.parametrize("pool", LEARNED)
@pytest.mark.parametrize("name", ["crossvit_9_240", "coat_tiny"])
def test_an_architecture_that_pools_more_than_one_map_is_one_line(name, pool):
    with pytest.raises(UserError) as caught:
        check_network(TrialConfig.model_validate({"model": {"name": name, "weights": "random", "pool": pool}}))
    assert str(caught.value) == (
        f"model.pool: {name!r} shows no map before it is pooled; leave it own, or take another model.name"
    )


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "mixer_s32_224", "crossvit_9_240"])
def test_an_architecture_without_a_class_token_is_one_line(name):
    with pytest.raises(UserError) as caught:
        check_network(TrialConfig.model_validate({"model": {"name": name, "weights": "random", "pool": "token_mean"}}))
    assert str(caught.value) == (
        f"model.pool: {name!r} has no class token beside its patches; leave it own, or take another model.name"
    )


@pytest.mark.parametrize(("name", "count"), [("swin_tiny_patch4_window7_224", 4), ("cait_xxs24_224", 2)])
def test_an_architecture_that_shows_no_class_token_behind_each_block_is_one_line(name, count):
    model = {"name": name, "weights": "random", "pool": "blocks", "pool_blocks": count}
    with pytest.raises(UserError) as caught:
        check_network(TrialConfig.model_validate({"model": model}))
    assert str(caught.value) == (
        f"model.pool: {name!r} shows no class token behind each of its last {count} blocks; leave it own, or take another "
        "model.name"
    )


@pytest.mark.parametrize("pool", ["token_mean", "blocks"])
def test_a_class_token_behind_an_earlier_stage_is_refused(pool):
    with pytest.raises(ValueError, match=rf"model\.pool: '{pool}' is .* needs model\.until: null, got 'stage2'"):
        TrialConfig.model_validate({"model": {"name": "test_vit", "pool": pool, "until": "stage2"}})
