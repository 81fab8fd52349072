"""Pretrained weights from real files: the demo package's, and files written here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.backbone import create_backbone, input_spec

RESNET50 = Path(__file__).parents[4] / "shared/weights/resnet50_imagenet_v1_fp16.safetensors"


def spec(channels=3, size=64):
    return InputSpec(size=size, mean=(0.5,) * channels, std=(0.5,) * channels, interpolation="bicubic", crop_share=1.0)


def load(name, weights, channels=3):
    return create_backbone(ModelConfig(name=name, weights=str(weights)), spec=spec(channels), generator_seed=0)[0]


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    torch.manual_seed(5)
    model = timm.create_model("resnet10t")
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(model.state_dict(), path)
    return path, model.state_dict()


def test_a_file_gives_every_tensor_of_the_backbone(resnet_file):
    path, state = resnet_file
    backbone = load("resnet10t", path).state_dict()
    assert all(torch.equal(backbone[name], state[name]) for name in backbone)
    assert set(state) - set(backbone) == {"fc.weight", "fc.bias"}


def test_a_torch_file_with_a_wrapped_half_precision_state_loads_as_floats(resnet_file, tmp_path):
    _, state = resnet_file
    halves = {f"module.{n}": t.half() if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"state_dict": halves, "epoch": 3}, tmp_path / "weights.pth")
    backbone = load("resnet10t", tmp_path / "weights.pth").state_dict()
    assert backbone["layer1.0.conv1.weight"].dtype == torch.float32
    torch.testing.assert_close(backbone["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("channels", "rule"), [(1, "sum"), (5, "rescaled")])
def test_other_channel_counts_answer_a_grey_image_as_three_do(resnet_file, channels, rule):
    """A constant image gives the same first response whatever the channels; 5 repeats unevenly, so only the sum holds."""
    path, state = resnet_file
    weight = load("resnet10t", path, channels).state_dict()["conv1.0.weight"]
    assert weight.shape[1] == channels
    expected = state["conv1.0.weight"].sum(dim=1) if rule == "sum" else weight.sum(dim=1)
    torch.testing.assert_close(weight.sum(dim=1), expected)
    if rule == "rescaled":
        torch.testing.assert_close(weight[:, :3], state["conv1.0.weight"] * 3 / 5)
        torch.testing.assert_close(weight[:, 3:], state["conv1.0.weight"][:, :2] * 3 / 5)


def test_weights_of_another_architecture_are_refused_with_counts(resnet_file):
    with pytest.raises(UserError, match=r"of another architecture: \d+ tensors missing, \d+ unknown") as caught:
        load("resnet18", resnet_file[0])
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_code_is_not_run(tmp_path):
    torch.save(Path("/"), tmp_path / "code.pth")
    with pytest.raises(UserError, match="also holds other Python objects .pathlib.PosixPath"):
        load("resnet10t", tmp_path / "code.pth")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("nothing.safetensors", "no file 'nothing.safetensors'"),
        ("package:efficientnet-lite9", "did you mean 'package:efficientnet-lite0'?"),
        ("package:efficientnet-lite0", "holds weights of 'tf_efficientnet_lite0', not of 'resnet10t'"),
    ],
)
def test_weights_that_are_not_there_are_one_line(weights, said):
    with pytest.raises(UserError) as caught:
        load("resnet10t", weights)
    assert said in str(caught.value)


def test_a_hub_that_cannot_be_reached_may_be_asked_again(tmp_path):
    code = (
        "from trainable.config.trial import ModelConfig\n"
        "from trainable.errors import OutageError\n"
        "from trainable.model.backbone import create_backbone, input_spec\n"
        "config = ModelConfig(name='resnet10t')\n"
        "spec = input_spec(config, image_size=32, channels=3)\n"
        "try: create_backbone(config, spec=spec, generator_seed=0)\n"
        "except OutageError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.startswith("model.weights: the pretrained weights of 'resnet10t' cannot be had ("), done.stderr


def test_the_plain_variant_of_the_demo_architecture_is_refused():
    """It has the same tensors, and would lose nine points silently to its other padding."""
    with pytest.raises(UserError, match="holds weights of 'tf_efficientnet_lite0', not of 'efficientnet_lite0'"):
        load("efficientnet_lite0", "package:efficientnet-lite0")


def test_the_demo_weights_are_mapped_to_the_right_layers():
    """Depthwise and pointwise kernels land where their shapes fit, and batch norms hold real statistics."""
    backbone = load("tf_efficientnet_lite0", "package:efficientnet-lite0")
    variances = [m.running_var for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((v != 1).any() for v in variances)
    assert all(m.eps == 1e-3 for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_every_norm_of_the_demo_weights_expects_what_its_layer_gives(cells):
    """On photographs, the variance of each channel before a norm follows the one that the norm has stored.

    A norm that belongs to another layer of the same shape knows nothing of it.
    """
    backbone = load("tf_efficientnet_lite0", "package:efficientnet-lite0").eval()
    norms = {name: module for name, module in backbone.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    seen = {}
    for name, norm in norms.items():
        norm.register_forward_hook(lambda _m, inputs, _o, name=name: seen.update({name: inputs[0].var((0, 2, 3))}))
    pixels = np.stack([np.asarray(Image.open(cell).convert("RGB").resize((224, 224))) for cell in cells[:8]])
    with torch.no_grad():
        backbone(torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2))
    agreement = {name: correlation(seen[name], norm.running_var) for name, norm in norms.items()}
    # Cells are unlike ImageNet, so the last norms agree least: 0.16 was the lowest, 0.92 the highest, 0.63 the mean.
    assert min(agreement.values()) > 0.1, agreement
    assert sum(agreement.values()) / len(agreement) > 0.5
    strangers = [
        correlation(seen[one], norm.running_var)
        for one in seen
        for other, norm in norms.items()
        if one != other and seen[one].shape == norm.running_var.shape
    ]
    assert sum(strangers) / len(strangers) < 0.3


def correlation(one, other):
    logs = torch.stack([one, other]).clamp(min=1e-9).log()
    return float(torch.corrcoef(logs)[0, 1])


def test_normalisation_size_and_crop_come_from_the_pretraining():
    lite = input_spec(ModelConfig(name="tf_efficientnet_lite0"), image_size=None, channels=3)
    assert (lite.size, lite.mean, lite.std, lite.interpolation, lite.crop_share) == (
        224,
        (0.5,) * 3,
        (0.5,) * 3,
        "bicubic",
        0.875,
    )
    resnet = input_spec(ModelConfig(name="resnet50"), image_size=128, channels=1)
    assert resnet.size == 128
    assert resnet.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_takes_another_image_size(name):
    config = ModelConfig(name=name, weights="random")
    backbone, _ = create_backbone(config, spec=spec(size=128 if "vit" in name else 224), generator_seed=0)
    assert backbone(torch.zeros(1, 3, *([128 if "vit" in name else 224] * 2))).ndim == 2


@pytest.mark.skipif(not RESNET50.is_file(), reason="the ResNet-50 weights are not beside the project")
def test_real_half_precision_weights_of_a_resnet_load_whole():
    backbone = load("resnet50", RESNET50)
    state = load_file(RESNET50)
    assert torch.equal(backbone.state_dict()["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"].float())
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)


TWO_HEADS = [
    "deit_tiny_distilled_patch16_224",
    "levit_128s",
    "crossvit_9_240",
    "volo_d1_224",
    "pit_ti_distilled_224",
    "efficientformer_l1",
    "efficientvim_m1_dist",
    "repvit_m0_9",
    "swiftformer_xs",
]


@pytest.mark.parametrize("name", TWO_HEADS)
def test_every_head_of_own_weights_is_left_out_whatever_its_size(name, tmp_path):
    torch.manual_seed(6)
    state = timm.create_model(name, num_classes=5).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    config = ModelConfig(name=name, weights=str(tmp_path / "w.safetensors"))
    size = input_spec(config, image_size=None, channels=3).size
    backbone = create_backbone(config, spec=spec(size=size), generator_seed=0)[0].state_dict()
    assert all(torch.equal(backbone[key], state[key]) for key in backbone)
    of_classes = {key for key, tensor in state.items() if tensor.shape[:1] == (5,)}
    assert len(of_classes) >= 4
    assert not of_classes & set(backbone)


@pytest.mark.parametrize("change", [{"fc.weight": None, "fc.bias": None}, {"fc.0.weight": torch.ones(9, 9)}])
def test_a_head_that_is_not_there_or_of_another_kind_is_left_out_too(change, resnet_file, tmp_path):
    state = {name: tensor for name, tensor in (resnet_file[1] | change).items() if tensor is not None}
    save_file(state, tmp_path / "w.safetensors")
    assert torch.equal(load("resnet10t", tmp_path / "w.safetensors").state_dict()["bn1.weight"], state["bn1.weight"])


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("trained_at", [160, 64])
def test_own_weights_of_a_transformer_are_taken_at_its_own_size_and_at_the_trials(trained_at, device, tmp_path):
    """The position embeddings of a network that was fine-tuned at 64 pixels are those of 64 pixels."""
    state = timm.create_model("test_vit", num_classes=5, img_size=trained_at).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    config = ModelConfig(name="test_vit", weights=str(tmp_path / "w.safetensors"))
    backbone = create_backbone(config, spec=spec(size=64), generator_seed=0, device=device)[0].state_dict()
    assert backbone["pos_embed"].shape[1] == 17
    if device == "cpu":
        assert torch.equal(backbone["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
        assert torch.equal(backbone["pos_embed"], state["pos_embed"]) == (trained_at == 64)


def test_the_weights_of_several_trials_are_read_once_a_process_and_stay_as_they_are(resnet_file, tmp_path):
    _, state = resnet_file
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    program = """
import os, sys, torch
from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.model.backbone import create_backbone
import trainable.model.weights_file as weights_file
opened = []
read = weights_file.load_file
weights_file.load_file = lambda path: (opened.append("read"), read(path))[1]
spec = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=1.0)
def load():
    return create_backbone(ModelConfig(name="resnet10t", weights=sys.argv[1]), spec=spec, generator_seed=0)[0]
first = load()
as_loaded = {name: tensor.clone() for name, tensor in first.state_dict().items()}
with torch.no_grad():
    for parameter in first.parameters():
        parameter.add_(1)
second = load().state_dict()
assert all(torch.equal(second[name], as_loaded[name]) for name in as_loaded)
assert opened.count("read") == 1, opened.count("read")
os.utime(sys.argv[1], ns=(0, 0))
load()
assert opened.count("read") == 2, opened.count("read")
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
