"""Prompts in timm's vision transformers with random weights: which blocks see them, what becomes of them."""

from dataclasses import replace

import pytest
import torch

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.light_adapters import without_adapters
from trainable.model.network import create_network

torch.set_num_threads(1)
SPEC = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)


def config_of(name="test_vit", *, depth=0.5, **finetune):
    return TrialConfig.model_validate(
        {
            "model": {"name": name, "weights": "random"},
            "freeze": {"depth": depth},
            "finetune": {"strategy": "prompt", "prompts": 3} | finetune,
        }
    )


def make(config, *, size=64):
    return create_network(config, spec=replace(SPEC, size=size), num_classes=3).eval()


def test_each_block_that_trains_sees_prompts_of_its_own_beside_its_tokens_and_gives_as_many_as_it_was_given():
    network, own = make(config_of()), make(without_adapters(config_of()))
    backbone, plan = network.backbone, network.plan
    prompted = [index for index, block in enumerate(backbone.blocks) if hasattr(block, "visual_prompts")]
    unit_of = plan.unit_of()
    above = [i for i in range(len(backbone.blocks)) if unit_of[f"blocks.{i}.norm1.weight"] not in plan.frozen(0.5)]
    assert prompted == above
    assert 0 < len(prompted) < len(backbone.blocks)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = own.backbone.norm_pre(own.backbone._pos_embed(own.backbone.patch_embed(images)))
        for index, block in enumerate(own.backbone.blocks):
            if index in prompted:  # as the paper has it: behind the class token, before the patches
                prompts = backbone.blocks[index].visual_prompts.expand(2, -1, -1)
                seen = block(torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1))
                tokens = torch.cat([seen[:, :1], seen[:, 4:]], dim=1)
            else:
                tokens = block(tokens)
        wanted = own.backbone.forward_head(own.backbone.norm(tokens))
        found = network.features(images)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert (found - own.features(images)).abs().max() > 1e-3


def test_prompts_and_head_alone_train_and_begin_as_the_paper_draws_them():
    network = make(config_of(prompts=200))
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert network.plan.light
    assert trainable == {f"backbone.{name}" for name in network.plan.light} | {"head.1.weight", "head.1.bias"}
    limit = (6 / (3 * 16 * 16 + 64)) ** 0.5
    for name in network.plan.light:
        prompts = network.backbone.get_parameter(name).detach()
        assert prompts.shape == (200, 64)
        assert 0.99 * limit < prompts.abs().max() <= limit
        assert abs(prompts.mean()) < 0.02 * limit
    again, other = make(config_of()), make(config_of().model_copy(update={"seed": 1}))
    name = sorted(network.plan.light)[0]
    assert torch.equal(make(config_of()).backbone.get_parameter(name), again.backbone.get_parameter(name))
    assert not torch.equal(other.backbone.get_parameter(name), again.backbone.get_parameter(name))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit_relpos"])
def test_a_network_that_is_no_plain_vision_transformer_is_one_line(name):
    with pytest.raises(UserError) as caught:
        make(config_of(name))
    assert str(caught.value) == (
        f"finetune.strategy: 'prompt' is of timm's VisionTransformer, which {name} is not; take another strategy or model.name"
    )
