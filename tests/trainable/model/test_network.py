from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model import network as network_module
from trainable.model.network import create_network

SPEC = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=0.875)


def make(name, size=64, **sections):
    config = TrialConfig.model_validate({"model": {"name": name, "weights": "random"}} | sections)
    return create_network(config, spec=replace(SPEC, size=size), num_classes=3)


def one_epoch(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network.eval()
    network.train()
    for step in range(3):
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def tensors(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_train_stats_lets_frozen_statistics_move_but_no_weight():
    network = make("resnet18", freeze={"depth": 1.0, "bn": "train_stats"})
    before = tensors(network)
    one_epoch(network)
    after = tensors(network)
    assert not torch.equal(after["backbone.bn1.running_mean"], before["backbone.bn1.running_mean"])
    assert torch.equal(after["backbone.bn1.weight"], before["backbone.bn1.weight"])
    assert torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"])


def test_train_all_also_trains_the_norms_weights():
    network = make("resnet18", freeze={"depth": 1.0, "bn": "train_all"})
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "backbone.bn1.weight" in trainable
    assert "backbone.conv1.weight" not in trainable
    assert "backbone.layer2.0.downsample.1.weight" in trainable
    assert "backbone.layer2.0.downsample.0.weight" not in trainable


def test_a_frozen_batch_norm_of_one_dimension_rests_too():
    network = make("levit_128s", size=224, freeze={"depth": 1.0})
    norms = [m for m in network.backbone.train().modules() if isinstance(m, nn.BatchNorm1d)]
    network.train()
    assert norms
    assert not any(norm.training for norm in norms)


def test_an_image_size_the_backbone_cannot_take_is_one_clear_line():
    with pytest.raises(UserError, match="data.image_size: this backbone cannot take images of 64 pixels") as caught:
        make("levit_128s")
    assert "\n" not in str(caught.value)


def test_the_head_starts_at_zero_logits_and_its_dropout_works_when_all_is_frozen():
    network = make("resnet18", freeze={"depth": 1.0}, model={"name": "resnet18", "weights": "random", "dropout": 0.5})
    network.train()
    assert network.head[0].training
    assert torch.equal(network(torch.randn(2, 3, 64, 64)), torch.zeros(2, 3))


def test_the_same_seed_gives_the_same_start_whatever_was_drawn_before():
    first = make("resnet18", seed=3)
    torch.randn(100)
    second = make("resnet18", seed=3)
    other = make("resnet18", seed=4)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)


def test_grey_and_many_channel_inputs_are_taken():
    for channels in (1, 5):
        spec = InputSpec(
            size=64, mean=(0.5,) * channels, std=(0.5,) * channels, interpolation="bicubic", crop_share=1.0
        )
        config = TrialConfig.model_validate({"model": {"name": "resnet18", "weights": "random"}})
        network = create_network(config, spec=spec, num_classes=2)
        assert network(torch.randn(2, channels, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_stochastic_depth_rests_in_frozen_layers_and_works_in_trainable_ones(name):
    network = make(name, model={"name": name, "weights": "random", "drop_path": 0.5}, freeze={"depth": 0.5})
    drops = [module.training for module in network.train().modules() if type(module).__name__ == "DropPath"]
    assert not drops[0]
    assert drops[-1]
    images = torch.randn(8, 3, 64, 64)
    assert not torch.equal(network.features(images), network.features(images))
    network.eval()
    assert torch.equal(network.features(images), network.features(images))


def test_a_backbone_is_built_once_a_process_and_no_trial_changes_it_for_the_next(monkeypatch):
    calls = []
    create = network_module.create_backbone
    monkeypatch.setattr(network_module, "create_backbone", lambda *args, **kw: calls.append(1) or create(*args, **kw))
    network_module._built.cache_clear()
    first = make("resnet10t")
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.add_(1)
    second = make("resnet10t")
    assert len(calls) == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in second.state_dict().items())


def test_a_weights_file_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "weights.safetensors"
    found = []
    for value in (1.0, 2.0):
        state = {
            name: torch.full_like(tensor, value) for name, tensor in make("resnet10t").backbone.state_dict().items()
        }
        save_file(state, path)
        read = make("resnet10t", model={"name": "resnet10t", "weights": str(path)})
        found.append(read.backbone.conv1[0].weight.flatten()[0].item())
    assert found == [1.0, 2.0]
