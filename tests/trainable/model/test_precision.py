import pytest
import torch

from trainable.model.precision import full_precision, used_amp

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_precision_that_is_named_is_used_on_every_device(amp, device):
    assert used_amp(amp, device) == amp


def test_without_one_named_a_cpu_computes_in_float32():
    assert used_amp("auto", CPU) == "off"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "off")])
def test_without_one_named_a_gpu_computes_in_bf16_where_it_has_that(supported, expected, monkeypatch):
    monkeypatch.setattr("trainable.model.precision._has_bf16", lambda device: supported and device.type == "cuda")
    assert used_amp("auto", CUDA) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_of_this_machine_has_bf16_from_ampere_on():
    has_bf16 = torch.cuda.get_device_capability()[0] >= 8
    assert used_amp("auto", CUDA) == ("bf16" if has_bf16 else "off")


def test_full_precision_is_that_inside_mixed_precision_too():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = torch.ones(2, 2, dtype=torch.bfloat16)
        with full_precision(values) as (whole,):
            assert (whole @ whole).dtype == torch.float32
        assert (values @ values).dtype == torch.bfloat16
