"""Weights as people's own programs have saved them."""

import argparse
import datetime
import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.errors import UserError
from trainable.model.backbone import create_backbone
from trainable.model.weights_file import KEYS, read_weights_file

NAME = "test_resnet"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=5)


def beginning(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def loaded(path):
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
    config = ModelConfig(name=NAME, weights=str(path))
    return create_backbone(config, spec=spec, generator_seed=0)[0].state_dict()


def compiled_inside(model):
    names = dict(model.named_children())
    return {
        f"{name.partition('.')[0]}._orig_mod.{name.partition('.')[2]}"
        if name.partition(".")[0] in names
        else name: tensor
        for name, tensor in model.state_dict().items()
    }


CHECKPOINTS = {
    "bare": lambda m: m.state_dict(),
    "torch.compile": lambda m: torch.compile(m).state_dict(),
    "torch.compile of a part": compiled_inside,
    "DataParallel": lambda m: nn.DataParallel(m).state_dict(),
    "DDP of a compiled one": lambda m: beginning("module._orig_mod.", m.state_dict()),
    "swa": lambda m: torch.optim.swa_utils.AveragedModel(m).state_dict(),
    "lightning, model": lambda m: {
        "state_dict": beginning("model.", m.state_dict()) | {"criterion.weight": torch.ones(5)},
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": {"lr": 0.1},
    },
    "lightning, compiled net": lambda m: {"state_dict": beginning("net._orig_mod.", m.state_dict())},
    "torchvision": lambda m: {"model": m.state_dict(), "args": {"lr": 0.1}, "optimizer": {"state": {}}, "epoch": 1},
    "ours": lambda m: (
        beginning("backbone.", m.state_dict()) | {"head.1.weight": torch.zeros(2, 8), "shift": torch.ones(2)}
    ),
    "nested": lambda m: {"model": {"state_dict": m.state_dict(), "arch": "resnet"}},
    "with buffers that are no tensors": lambda m: m.state_dict() | {"version": 2},
}


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_every_form_gives_all_tensors_of_the_backbone(form, model, tmp_path):
    torch.save(CHECKPOINTS[form](model), tmp_path / "w.pth")
    backbone = loaded(tmp_path / "w.pth")
    assert all(torch.equal(backbone[name], model.state_dict()[name]) for name in backbone)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_checkpoint_is_looked_into(key, model, tmp_path):
    torch.save({"epoch": 1, key: model.state_dict()}, tmp_path / "w.pth")
    assert torch.equal(loaded(tmp_path / "w.pth")["conv1.0.weight"], model.state_dict()["conv1.0.weight"])


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_running_average_is_taken_where_a_checkpoint_has_one(key, model, tmp_path):
    average = {
        name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    whole = {"state_dict": model.state_dict(), "model": model.state_dict(), key: beginning("module.", average)}
    torch.save(whole, tmp_path / "w.pth")
    assert torch.equal(loaded(tmp_path / "w.pth")["conv1.0.weight"], model.state_dict()["conv1.0.weight"] + 1)


def test_shapes_alone_are_read_on_meta(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pth")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        state = read_weights_file(path, names=model.state_dict(), device="meta")
        assert {name: tensor.shape for name, tensor in state.items()} == {
            name: tensor.shape for name, tensor in model.state_dict().items()
        }
        assert all(tensor.is_meta for tensor in state.values())


def test_a_file_of_two_networks_names_both(model, tmp_path):
    both = beginning("teacher.", model.state_dict()) | beginning("student.", model.state_dict())
    torch.save(both, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds 2 networks, under 'student\.' and 'teacher\.'; save the one"):
        loaded(tmp_path / "w.pth")


OTHER_OBJECTS = {
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    "numpy._core.multiarray.scalar": np.float64(0.5),
    "pathlib.PosixPath": Path("/"),
    "datetime.date": datetime.date(2020, 1, 1),
    "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", OTHER_OBJECTS)
def test_other_objects_beside_the_tensors_are_named_in_one_sentence_with_the_way_out(name, is_zip, model, tmp_path):
    path = tmp_path / "w.pth"
    content = {"state_dict": model.state_dict(), "args": OTHER_OBJECTS[name]}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError) as caught:
        loaded(path)
    assert str(caught.value) == (
        f"model.weights: {path} also holds other Python objects ({name}), and only tensors are loaded, since unpickling "
        "others runs code; save the weights alone with torch.save(model.state_dict(), 'weights.pth'), or as safetensors"
    )


def halved(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()[:5000]


BROKEN = {
    "an empty file": ("w.pth", lambda m: b"", "is cut off"),
    "a pointer of git-lfs": ("w.pth", lambda m: b"version https://git-lfs.github.com/spec/v1\noid", "no readable"),
    "the same as safetensors": (
        "w.safetensors",
        lambda m: b"version https://git-lfs.github.com/spec/v1",
        "no readable",
    ),
    "half of one": ("w.pth", halved, "no readable safetensors or torch weights file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_weights_file_is_one_short_line_without_control_codes(kind, model, tmp_path):
    name, content, said = BROKEN[kind]
    (tmp_path / name).write_bytes(content(model))
    with pytest.raises(UserError) as caught:
        loaded(tmp_path / name)
    line = str(caught.value)
    assert said in line
    assert line.isprintable()
    assert len(line) < 250 + len(str(tmp_path))


@pytest.mark.parametrize("content", [{"epoch": 3, "layers": {"0": torch.ones(2)}}, [torch.ones(2)], torch.ones(2)])
def test_a_file_without_a_state_dict_says_what_it_holds(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"holds no state dict of tensors, but (epoch, layers|list|Tensor); save it with"
    ):
        loaded(tmp_path / "w.pth")
