import pytest
import torch

from trainable import fit
from trainable.config.trial import TrainConfig
from trainable.training.checkpoint import read_state
from trainable.training.device import CUDNN, MATMUL, autocast, numerics, pick_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amp", "enabled"), [("auto", False), ("off", False), ("bf16", True)])
def test_autocast_is_what_is_used_on_the_device(amp, enabled):
    with autocast(CPU, TrainConfig(amp=amp)):
        assert torch.is_autocast_enabled("cpu") is enabled


def test_a_cpu_has_its_float32_left_as_it_is(make_config):
    before = torch.get_float32_matmul_precision()
    assert pick_device(make_config(train={"device": "cpu"})) == CPU
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_every_checkpoint_says_in_what_numerics_it_was_trained(make_config, tmp_path):
    config = make_config(train={"epochs": 1, "device": "cpu"})
    (epoch,) = ((epoch, epoch.save(tmp_path / "epoch"))[0] for epoch in fit(config))
    assert epoch.number == 1
    said = read_state(tmp_path / "epoch")["results"]["numerics"]
    assert said == numerics(CPU, config.train)
    assert said == {"device": "cpu", "amp": "off", "channels_last": True, "float32_matmul": "highest"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_its_numerics_set_when_it_is_picked(make_config):
    config = make_config(train={"device": "cuda"})
    used = numerics(pick_device(config), config.train)
    assert used["float32_matmul"] == MATMUL
    assert {name: used[f"cudnn_{name}"] for name in CUDNN} == CUDNN
