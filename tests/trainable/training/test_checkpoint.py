"""What a checkpoint gives back, beyond what the stories of whole trials show."""

import json
from math import inf

import pytest
import torch

from trainable.config.trial import OptimizerConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import create_network
from trainable.training.checkpoint import (
    STATE,
    BrokenCheckpointError,
    Counters,
    check_whole,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from trainable.training.optimizer import create_optimizer

SPEC = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=1.0)


def make(rule):
    config = TrialConfig.model_validate({"model": {"name": "resnet10t", "weights": "random"}})
    network = create_network(config, spec=SPEC, num_classes=2).to(memory_format=torch.channels_last)
    return network, create_optimizer(network, config=OptimizerConfig(name=rule))


def save(folder, network, optimizer, *, moved):
    save_checkpoint(
        folder,
        network=network,
        moved=moved,
        average=None,
        optimizer=optimizer,
        counters=Counters(1, {1: 0.5}, {}),
        results={},
    )


@pytest.mark.parametrize("rule", ["adamw", "sgd", "lamb", "lion", "muon"])
def test_an_optimizer_comes_back_whole_and_in_the_layout_of_its_parameters(rule, tmp_path):
    network, optimizer = make(rule)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    network.head[-1].weight.grad.add_(1.0)
    optimizer.step()
    names = {name for name, _ in network.named_parameters()}
    save(tmp_path / "one", network, optimizer, moved=names)
    other, restored = make(rule)
    counters = load_checkpoint(
        tmp_path / "one", network=other, moved=lambda epoch: names, average=None, optimizer=restored
    )
    assert (counters.epoch, counters.history) == (1, {1: 0.5})
    pairs = list(zip(network.parameters(), other.parameters(), strict=True))
    for old, new in pairs:
        assert torch.equal(old, new)
        for key, value in optimizer.state[old].items():
            again = restored.state[new][key]
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(again))
            if isinstance(again, torch.Tensor) and again.shape == new.shape:
                assert again.stride() == new.stride()


def test_the_state_is_json_for_every_reader_and_comes_back_with_its_infinite_metrics(tmp_path):
    network, optimizer = make("sgd")
    save_checkpoint(
        tmp_path / "one",
        network=network,
        moved=set(),
        average=None,
        optimizer=optimizer,
        counters=Counters(2, {1: inf, 2: -0.5}, {}),
        results={"metrics": {"target/snd": -inf, "target/dev": -0.25}},
    )
    text = (tmp_path / "one" / STATE).read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read_state(tmp_path / "one")["results"] == {"metrics": {"target/snd": -inf, "target/dev": -0.25}}
    counters = load_checkpoint(
        tmp_path / "one", network=network, moved=lambda epoch: set(), average=None, optimizer=optimizer
    )
    assert counters.history == {1: inf, 2: -0.5}


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors"])
def test_one_bit_of_a_checkpoint_that_turned_is_found(name, tmp_path):
    network, optimizer = make("adamw")
    names = {name for name, _ in network.named_parameters()}
    save(tmp_path / "one", network, optimizer, moved=names)
    check_whole(tmp_path / "one")
    content = bytearray((tmp_path / "one" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "one" / name).write_bytes(content)
    with pytest.raises(BrokenCheckpointError, match="is not what was written"):
        check_whole(tmp_path / "one")
    with pytest.raises(BrokenCheckpointError, match="is not what was written"):
        load_checkpoint(tmp_path / "one", network=network, moved=lambda _: names, average=None, optimizer=optimizer)


def test_the_head_alone_of_a_large_network_takes_less_than_a_megabyte(tmp_path):
    config = TrialConfig.model_validate({"model": {"name": "resnet50", "weights": "random"}, "freeze": {"depth": 1.0}})
    network = create_network(config, spec=SPEC, num_classes=10)
    optimizer = create_optimizer(network, config=OptimizerConfig())
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    save(tmp_path / "one", network, optimizer, moved=network.moved(config, until=1))
    assert sum(path.stat().st_size for path in (tmp_path / "one").iterdir()) < 1e6
