"""Every family of timm's: one small member is laid out, frozen, trained, packaged and served as any other."""

import json
from dataclasses import asdict
from functools import cache
from itertools import pairwise

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.decode import decode
from trainable.errors import UserError
from trainable.model import layers
from trainable.model.backbone import input_spec, laid_out, serving_options
from trainable.model.layer_plan import STAGES
from trainable.model.layers import pool_stages
from trainable.model.network import check_network, create_network
from trainable.model.phase import phase
from trainable.model.stages import stage_ends
from trainable.serving.classifier import DESCRIPTION, WEIGHTS, Classifier
from trainable.training.trained import network_state

# By timm's module: a member with few parameters, and a side of images that it takes, small where it may be.
FAMILIES = {
    "beit": ("beit_base_patch16_224", 32),
    "byoanet": ("halonet_h1", 256),
    "byobnet": ("test_byobnet", 32),
    "cait": ("cait_xxs24_224", 224),
    "coat": ("coat_tiny", 224),
    "convit": ("convit_tiny", 224),
    "convmixer": ("convmixer_768_32", 32),
    "convnext": ("test_convnext", 32),
    "cpubone": ("cpubone_nano", 32),
    "crossvit": ("crossvit_tiny_240", 32),
    "csatv2": ("csatv2", 64),
    "cspnet": ("cs3darknet_focus_s", 32),
    "cspnext": ("cspnext_tiny", 32),
    "davit": ("davit_tiny", 32),
    "deepseek_vit": ("deepseek_vit_412m", 224),
    "deit": ("deit_tiny_patch16_224", 32),
    "densenet": ("densenet121", 32),
    "dla": ("dla46x_c", 32),
    "dpn": ("dpn48b", 32),
    "edgenext": ("edgenext_xx_small", 32),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 224),
    "efficientnet": ("test_efficientnet", 32),
    "efficientvim": ("efficientvim_m1", 32),
    "efficientvit_mit": ("efficientvit_b0", 32),
    "efficientvit_msra": ("efficientvit_m0", 32),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 32),
    "fasternet": ("fasternet_t0", 32),
    "fastvit": ("fastvit_t8", 32),
    "focalnet": ("focalnet_tiny_srf", 32),
    "gcvit": ("gcvit_xxtiny", 224),
    "gemma4_vit": ("gemma4_vit_167m", 32),
    "ghostnet": ("ghostnet_050", 32),
    "hardcorenas": ("hardcorenas_b", 32),
    "hgnet": ("hgnetv2_b0", 32),
    "hiera": ("hiera_tiny_224", 224),
    "hieradet_sam2": ("sam2_hiera_tiny", 32),
    "hrnet": ("hrnet_w18_small", 32),
    "iformer": ("iformer_t", 64),
    "inception_next": ("inception_next_atto", 32),
    "inception_resnet_v2": ("inception_resnet_v2", 128),
    "inception_v3": ("inception_v3", 128),
    "inception_v4": ("inception_v4", 128),
    "lcnetv2": ("lcnetv2_small", 32),
    "levit": ("levit_128s", 224),
    "lowformer": ("lowformer_b0", 32),
    "mambaout": ("test_mambaout", 32),
    "maxxvit": ("test_coatnet", 32),
    "metaformer": ("poolformerv2_s12", 32),
    "mlp_mixer": ("gmlp_ti16_224", 224),
    "mobilenetv3": ("mobilenetv3_small_050", 32),
    "mobilenetv5": ("mobilenetv5_base", 32),
    "mobilevit": ("mobilevit_xxs", 32),
    "mvitv2": ("mvitv2_tiny", 32),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 32),
    "nasnet": ("nasnetalarge", 32),
    "nest": ("nest_tiny", 224),
    "nextvit": ("nextvit_small", 32),
    "nfnet": ("test_nfnet", 32),
    "pit": ("pit_ti_224", 224),
    "pnasnet": ("pnasnet5large", 32),
    "pvt_v2": ("pvt_v2_b0", 32),
    "qwen3_vit": ("qwen3_vit_88m", 32),
    "rdnet": ("rdnet_tiny", 32),
    "regnet": ("regnetx_002", 32),
    "repghost": ("repghostnet_050", 32),
    "repvit": ("repvit_m1", 32),
    "res2net": ("res2next50", 32),
    "resnest": ("resnest14d", 32),
    "resnet": ("test_resnet", 32),
    "resnetv2": ("resnetv2_18", 32),
    "rexnet": ("rexnet_100", 32),
    "selecsls": ("selecsls42", 32),
    "senet": ("legacy_seresnet18", 32),
    "sequencer": ("sequencer2d_s", 32),
    "shvit": ("shvit_s1", 32),
    "sknet": ("skresnet18", 32),
    "starnet": ("starnet_s050", 32),
    "swiftformer": ("swiftformer_xs", 32),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 32),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 32),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 32),
    "tiny_vit": ("tiny_vit_5m_224", 32),
    "tnt": ("tnt_s_legacy_patch16_224", 224),
    "tresnet": ("tresnet_m", 32),
    "twins": ("twins_svt_small", 32),
    "vgg": ("vgg11", 32),
    "visformer": ("visformer_tiny", 224),
    "vision_transformer": ("test_vit", 32),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 32),
    "vision_transformer_relpos": ("test_vit_relpos", 32),
    "vision_transformer_sam": ("samvit_base_patch16_224", 32),
    "vitamin": ("vitamin_small_224", 32),
    "volo": ("volo_d1_224", 224),
    "vovnet": ("ese_vovnet19b_slim_dw", 32),
    "xception": ("legacy_xception", 32),
    "xception_aligned": ("xception41p", 32),
    "xcit": ("xcit_nano_12_p8_224", 32),
}
FAMILIES = {
    family: member for family, member in FAMILIES.items() if timm.is_model(member[0])
}  # an older timm has fewer
# Members whose numbers would take minutes: only their shapes are tried.
LARGE = {
    "beit",
    "convmixer",
    "davit",
    "deepseek_vit",
    "densenet",
    "gcvit",
    "gemma4_vit",
    "hiera",
    "hieradet_sam2",
    "inception_resnet_v2",
    "inception_v4",
    "mobilenetv5",
    "mvitv2",
    "naflexvit",
    "nasnet",
    "nextvit",
    "pnasnet",
    "qwen3_vit",
    "sequencer",
    "byoanet",
    "swin_transformer_v2_cr",
    "tresnet",
    "vgg",
    "vision_transformer_sam",
    "vitamin",
}
# With several heads, some of them beside the first member of their family.
TWO_HEADS = {
    "deit_tiny_distilled_patch16_224": 32,
    "levit_128s": 224,
    "crossvit_9_240": 32,
    "volo_d1_224": 224,
    "pit_ti_distilled_224": 224,
    "efficientformer_l1": 224,
    "efficientvim_m1_dist": 32,
    "repvit_m0_9": 32,
    "swiftformer_xs": 32,
}
TRAINED = dict(member for family, member in FAMILIES.items() if family not in LARGE) | TWO_HEADS
# Architectures that no trial can use, with what is said of them.
UNUSABLE = {
    name: "is an encoder of a larger model, without pooled features to classify by"
    for name in timm.list_models()
    if name.endswith("_enc")
}
NO_STOCHASTIC_DEPTH = {
    "convmixer",
    "densenet",
    "dla",
    "dpn",
    "efficientvit_mit",
    "efficientvit_msra",
    "ghostnet",
    "hrnet",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnetv2",
    "nasnet",
    "pnasnet",
    "repghost",
    "repvit",
    "selecsls",
    "senet",
    "shvit",
    "vgg",
    "xception",
}

# That pool several maps or tokens alone, so that there is no map to be pooled otherwise.
NO_ONE_MAP = {"coat", "crossvit", "efficientvim", "pit"}
# Whose own features are their class token.
BY_TOKEN = {"cait", "convit", "deit", "tnt", "vision_transformer", "vision_transformer_hybrid", "volo", "xcit"}
CLASS_TOKENS = BY_TOKEN | {"beit", "eva"}
# That show it behind each of their blocks.
BLOCK_TOKENS = {"beit", "deit", "eva", "tnt", "vision_transformer", "vision_transformer_hybrid"}
# With a layer between the last map and its mean, which is given what is pooled instead of what is to be pooled.
LAYER_BEFORE_MEAN = {"cpubone", "efficientvit_mit", "lowformer"}

# One of each kind of architecture and of each exception above: what builds or trains networks is tried with these in every run
# of the tests, and with all families by `pytest -m long`.
IN_SHORT = {
    "beit",
    "cait",
    "coat",
    "convnext",
    "deit",
    "dla",
    "efficientnet",
    "efficientvit_mit",
    "eva",
    "mlp_mixer",
    "resnet",
    "swin_transformer",
    "vision_transformer",
}

slow = pytest.mark.slow


def some_in_short(names, *, short):
    return [name if name in short else pytest.param(name, marks=pytest.mark.long) for name in names]


FEW = some_in_short(FAMILIES, short=IN_SHORT)
FEW_SMALL = some_in_short(sorted(FAMILIES.keys() - LARGE), short=IN_SHORT)
FEW_POOLED = some_in_short(sorted(FAMILIES.keys() - LARGE - NO_ONE_MAP), short=IN_SHORT)
FEW_TRAINED = some_in_short(
    TRAINED, short={FAMILIES[family][0] for family in IN_SHORT} | {"deit_tiny_distilled_patch16_224"}
)


def config_of(name, *, size, depth=0.5, **model):
    return TrialConfig.model_validate(
        {
            "data": {"image_size": size},
            "model": {"name": name, "weights": "random"} | model,
            "freeze": {"depth": depth},
        }
    )


def network_of(config):
    spec = input_spec(config.model, image_size=config.data.image_size, channels=3)
    network = create_network(config, spec=spec, num_classes=3)
    nn.init.normal_(network.head[-1].weight, std=0.1, generator=torch.Generator().manual_seed(2))  # it starts at 0
    return network, spec


sketch = cache(laid_out)


def test_the_table_has_every_family_that_timm_has():
    functions = {name: timm.model_entrypoint(name) for name in timm.list_models()}
    family_of = {
        name: made.__module__.split(".")[-1] for name, made in functions.items() if made.__module__.startswith("timm.")
    }
    assert set(family_of.values()) == set(FAMILIES)
    assert all(family_of[name] == family for family, (name, _) in FAMILIES.items())


@slow
@pytest.mark.parametrize("family", FAMILIES)
def test_its_layers_are_planned_from_the_stem_on_each_parameter_once(family):
    name, _ = FAMILIES[family]
    backbone, plan = sketch(name)
    units = plan.units
    planned = [parameter for unit in units for parameter in unit.parameters]
    assert sorted(planned) == sorted(key for key, _ in backbone.named_parameters())
    stages = [STAGES.index(unit.stage) for unit in units]
    assert stages[0] == 0
    assert stages == sorted(stages)
    assert len(set(stages)) == min(5, len(units)) or (
        family in ("nasnet", "pnasnet", "selecsls") and len(set(stages)) == 4
    )


@slow
@pytest.mark.parametrize("family", FAMILIES)
def test_freezing_grows_with_depth_from_nothing_to_everything(family):
    _, whole = sketch(FAMILIES[family][0])
    frozen = [whole.frozen(depth) for depth in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert frozen[0] == frozenset()
    assert frozen[-1] == frozenset(range(len(whole.units)))
    assert all(before < after for before, after in pairwise(frozen))
    assert whole.frozen("stem") == {0} or len(whole.units) > 5


@slow
@pytest.mark.parametrize("family", FEW)
def test_check_builds_it_by_shapes_alone_with_stochastic_depth_or_says_that_it_takes_none(family):
    name, size = FAMILIES[family]
    if family in NO_STOCHASTIC_DEPTH:
        with pytest.raises(
            UserError, match=rf"model\.drop_path: '{name}' takes no stochastic depth; set it to 0, not 0\.3"
        ):
            check_network(config_of(name, size=size, drop_path=0.3))
    check_network(config_of(name, size=size, drop_path=0.0 if family in NO_STOCHASTIC_DEPTH else 0.3))


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_said_with_the_reason(name):
    with pytest.raises(UserError) as caught:
        check_network(config_of(name, size=None))
    assert str(caught.value) == f"model.name: {name!r} {UNUSABLE[name]}"


@slow
@pytest.mark.parametrize("name", FEW_TRAINED)
def test_it_trains_half_frozen_and_is_served_as_trained(name, tmp_path):
    """One update moves the head and nothing frozen, and draws nothing; what a package is made of gives the same logits."""
    torch.set_num_threads(1)
    size = TRAINED[name]
    config = config_of(name, size=size)
    network, spec = network_of(config)
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    logits = network.train()(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    torch.optim.SGD([p for p in network.parameters() if p.grad is not None], lr=1e-4).step()
    trainable = network.trainable(phase(config, plan=network.plan, epoch=1))
    moved = {key for key, parameter in network.named_parameters() if not torch.equal(parameter, before[key])}
    assert {"head.1.weight", "head.1.bias"} < moved <= trainable
    served = package_of(network, config=config, spec=spec, folder=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(served(images), network.eval()(images), atol=1e-4, rtol=1e-4)


@slow
@pytest.mark.parametrize("family", FEW)
def test_it_ends_behind_every_stage_that_it_shows_and_says_which_those_are(family):
    name, size = FAMILIES[family]
    backbone, plan = sketch(name)
    ends = stage_ends(backbone, plan=plan) if hasattr(backbone, "forward_intermediates") else {}
    for stage in STAGES[1:]:
        if stage in ends:
            check_network(config_of(name, size=size, until=stage))
        else:
            with pytest.raises(UserError, match=f"model.until: '{name}' (shows no '{stage}'; there are|cannot be cut)"):
                check_network(config_of(name, size=size, until=stage))


@slow
@pytest.mark.parametrize("family", FEW_SMALL)
def test_what_ends_behind_a_stage_gives_its_averaged_maps_and_is_served_as_it_is_and_both_are_features(
    family, tmp_path
):
    torch.set_num_threads(1)
    name, size = FAMILIES[family]
    whole, _ = network_of(config_of(name, size=size))
    ends = stage_ends(whole.backbone, plan=whole.plan) if hasattr(whole.backbone, "forward_intermediates") else {}
    if len(ends) < 2:
        pytest.skip("it shows no stage before its last")
    stage, end = list(ends.items())[-2]
    config = config_of(name, size=size, until=stage)
    network, spec = network_of(config)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shown = whole.eval().backbone.forward_intermediates(
            images, indices=[end.index], output_fmt="NCHW", intermediates_only=True
        )[-1]
        torch.testing.assert_close(network.eval().features(images), shown.mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)
        served = package_of(network, config=config, spec=spec, folder=tmp_path)
        torch.testing.assert_close(served(images), network(images), atol=1e-4, rtol=1e-4)
        own = whole.features(images)
        pool_stages(whole.backbone, indices=[end.index], is_cut=False)
        both = whole.features(images)
        torch.testing.assert_close(both[:, : own.shape[1]], own, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            both[:, own.shape[1] :][:, : end.channels], shown.mean(dim=(2, 3)), atol=1e-4, rtol=1e-4
        )


@slow
@pytest.mark.parametrize("family", FEW)
def test_check_pools_its_last_map_or_its_class_token_otherwise_or_says_that_it_has_none(family):
    name, size = FAMILIES[family]
    for pool, has_it in (
        ("gem", family not in NO_ONE_MAP),
        ("attentive", family not in NO_ONE_MAP),
        ("token_mean", family in CLASS_TOKENS),
        ("blocks", family in BLOCK_TOKENS),
    ):
        if has_it:
            check_network(config_of(name, size=size, pool=pool))
        else:
            with pytest.raises(
                UserError, match=f"model.pool: '{name}' (shows no map|has no class token|shows no class token)"
            ):
                check_network(config_of(name, size=size, pool=pool))


@slow
@pytest.mark.parametrize("family", FEW_POOLED)
def test_the_mean_of_its_positions_makes_its_own_features_and_other_pools_are_served_as_they_are(family, tmp_path):
    torch.set_num_threads(1)
    name, size = FAMILIES[family]
    size = max(size, 64)  # at 32 the last map of many has one position
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    own, _ = network_of(config_of(name, size=size))
    config = config_of(name, size=size, pool="token_mean" if family in BY_TOKEN else "gem")
    network, spec = network_of(config)
    with torch.no_grad():
        wanted, features = own.eval().features(images), network.eval().features(images)
        if family in BY_TOKEN:
            torch.testing.assert_close(features[:, : wanted.shape[1]], wanted, atol=1e-5, rtol=1e-5)
        elif family not in LAYER_BEFORE_MEAN:
            mean = network.backbone.finish(network.backbone(images).mean(dim=1))
            torch.testing.assert_close(mean, wanted, atol=1e-5, rtol=1e-5)
        served = package_of(network, config=config, spec=spec, folder=tmp_path)
        torch.testing.assert_close(served(images), network(images), atol=1e-4, rtol=1e-4)


def package_of(network, *, config, spec, folder):
    description = {
        "architecture": config.model.name,
        **serving_options(config.model, spec=spec, flexible=False),
        "classes": ["a", "b", "c"],
        "input": asdict(spec),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description))
    save_file(network_state(network), folder / WEIGHTS)
    return Classifier(folder, decode=decode, layers=layers, device="cpu").network
