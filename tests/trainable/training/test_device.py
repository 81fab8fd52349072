import pytest
import torch

from trainable import fit
from trainable.config.trial import TrainConfig
from trainable.training.checkpoint import read_state
from trainable.training.device import CUDNN, MATMUL, autocast, gpu_bytes, numerics, pick_device
from trainable.training.memory import free_memory, limit_memory

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


def test_a_cpu_tells_no_bytes_of_a_gpu():
    assert gpu_bytes(CPU) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_bytes_of_a_gpu_are_those_of_the_peak_and_a_limit_holds():
    device = torch.device("cuda")
    free_memory()
    torch.cuda.reset_peak_memory_stats(device)
    before = gpu_bytes(device)["usage/gpu_bytes"]
    torch.empty(1 << 30, dtype=torch.uint8, device=device)
    free_memory()
    after = gpu_bytes(device)
    assert 0.9 * 2**30 < after["usage/gpu_bytes"] - before < 1.1 * 2**30
    limit_memory(2**29 / after["usage/gpu_total_bytes"])
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 30, dtype=torch.uint8, device=device)
    finally:
        limit_memory(1.0)
