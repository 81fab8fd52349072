"""What `check` says of the backbones of a space before anything is trained."""

import argparse
import sys
from importlib.util import find_spec

import pytest
import timm
import torch
import yaml

from search.space.loading import load
from search.space.preflight import check_models, check_techniques, weights_of
from trainable.errors import UserError


def spec_of(tmp_path, *, model, vary=None, data=None, **sections):
    base_data = {"path": "data"} | ({} if "data.image_size" in (vary or {}) else {"image_size": 32})
    space = {
        "search": {"name": "looked-at", "trials": 3, "folder": str(tmp_path)},
        "scheduler": {"min_epochs": 1, "max_epochs": 2},
        "base": {"data": base_data | (data or {}), "model": model},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}} | (vary or {}),
    }
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space | sections))
    return load(path, ())


@pytest.fixture
def weights(tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
RANDOM = {"name": "test_resnet", "weights": "random"}
MISTAKES = {
    "an unknown name": (
        RANDOM | {"name": "resnet19"},
        "model.name: unknown timm architecture 'resnet19'; did you mean",
    ),
    "an unknown tag": (
        RANDOM | {"name": "resnet18.a9"},
        "model.name: timm knows no weights 'a9' of 'resnet18'; there are",
    ),
    "an encoder": (RANDOM | {"name": "qwen3_vit_88m_enc"}, "model.name: 'qwen3_vit_88m_enc' is an encoder of a larger"),
    "a file that is not there": (RANDOM | {"weights": "no.pth"}, "model.weights: no file 'no.pth'"),
    "weights that timm has not": (
        {"name": "halonet_h1", "weights": "pretrained"},
        "model.weights: timm has no pretrained weights of 'halonet_h1'; give a weights file, or `random`",
    ),
    "stochastic depth, random": (
        {"name": "vgg11", "weights": "random", "drop_path": 0.1},
        "model.drop_path: 'vgg11' takes no stochastic depth; set it to 0, not 0.1",
    ),
    "stochastic depth, pretrained": (
        {"name": "vgg11", "weights": "pretrained", "drop_path": 0.1},
        "model.drop_path: 'vgg11' takes no stochastic depth; set it to 0, not 0.1",
    ),
    "stochastic depth, own": (
        {"name": "vgg11", "weights": "no.pth", "drop_path": 0.1},
        "model.drop_path: 'vgg11' takes no stochastic depth; set it to 0, not 0.1",
    ),
    "a size that it cannot take": (
        {"name": "coat_tiny", "weights": "random"},
        "data.image_size: this backbone cannot take images of 32 pixels (Input height (32) doesn't match model (224).)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_backbone_that_cannot_be_built_is_one_line(mistake, tmp_path):
    model, said = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        check_models(spec_of(tmp_path, model=model))
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()


def test_own_weights_of_another_architecture_or_with_other_objects_are_one_line(tmp_path, weights):
    with pytest.raises(UserError, match=r"model\.weights: .*w\.pth is of another architecture: \d+ tensors missing"):
        check_models(spec_of(tmp_path, model={"name": "test_vit", "weights": weights}))
    torch.save({"args": argparse.Namespace()}, tmp_path / "args.pth")
    with pytest.raises(UserError, match=r"args\.pth also holds other Python objects \(argparse\.Namespace\)"):
        check_models(spec_of(tmp_path, model={"name": "test_vit", "weights": str(tmp_path / "args.pth")}))


def test_what_can_be_built_passes(tmp_path, weights):
    for model in (RANDOM, {"name": "resnet18", "weights": "pretrained"}):
        assert check_models(spec_of(tmp_path, model=model)) == []
    for channels in (1, 3):
        spec = spec_of(tmp_path, model={"name": "test_resnet", "weights": weights}, data={"channels": channels})
        assert check_models(spec) == [
            f"model.weights: the head in {weights} is left out, if it has one; a new one is trained"
        ]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"model.name": {"choice": ["test_resnet", "resnet19"]}}, "unknown timm architecture 'resnet19'"),
        (
            {"model.drop_path": {"uniform": [0.0, 0.2]}, "model.name": {"choice": ["test_resnet", "vgg11"]}},
            "'vgg11' takes no",
        ),
        (
            {"model.name": {"choice": ["test_resnet", "coat_tiny"]}, "data.image_size": {"choice": [64, 224]}},
            "of 64 pixels",
        ),
        (
            {
                "model.name": {"choice": ["test_resnet", "vgg11"]},
                "model.drop_path": {"uniform": [0.1, 0.2], "when": {"model.name": "vgg11"}},
            },
            "'vgg11' takes no stochastic depth",
        ),
        (
            {
                "model.name": {"choice": ["test_resnet", "vgg11"]},
                "model.until": {"choice": [None, "stage4"]},
            },
            "model.until: 'vgg11' shows no 'stage4'; there are stage1, stage2, stage3",
        ),
    ],
)
def test_every_backbone_of_a_space_is_looked_at_with_what_may_go_with_it(vary, said, tmp_path):
    model = {name: value for name, value in RANDOM.items() if f"model.{name}" not in vary}
    spec = spec_of(tmp_path, model=model, vary=vary)
    with pytest.raises(UserError, match=said):
        check_models(spec)


def test_weights_that_another_backbone_begins_with_are_not_asked_of_this_one(tmp_path, weights):
    vary = {
        "model.name": {"choice": ["test_resnet", "test_vit"]},
        "model.weights": {"choice": [weights], "when": {"model.name": "test_resnet"}},
    }
    check_models(spec_of(tmp_path, model={"weights": "random"}, vary=vary))


def test_the_weights_of_every_model_are_told_once_but_those_that_are_random(tmp_path, weights):
    vary = {
        "model.name": {"choice": ["test_resnet", "test_vit", "test_convnext"]},
        "model.weights": {"choice": [weights, "random"], "when": {"model.name": "test_resnet"}},
        "model.drop_path": {"choice": [0.0, 0.1], "when": {"model.name": "test_vit"}},
    }
    places = weights_of(spec_of(tmp_path, model={"weights": "pretrained"}, vary=vary, data={"image_size": 160}))
    told = {place.model.partition(".")[0]: place for place in places}
    assert len(places) == len(told) == 3
    assert (told["test_resnet"].kind, told["test_resnet"].place) == ("file", weights)
    assert {told[name].licence for name in ("test_vit", "test_convnext")} == {"apache-2.0"}
    assert weights_of(spec_of(tmp_path, model=RANDOM)) == []


def test_weights_that_scratch_never_reads_need_not_be_there(tmp_path):
    vary = {"finetune.strategy": {"choice": ["scratch"]}}
    check_models(spec_of(tmp_path, model=RANDOM | {"weights": "no.pth"}, vary=vary))


def test_what_a_step_trains_need_not_be_there_but_what_it_begins_with(tmp_path):
    spec = spec_of(tmp_path, model={"name": "test_resnet", "weights": "ssl"}, ssl={"weights": "random", "epochs": 1})
    check_models(spec)
    spec = spec_of(tmp_path, model={"name": "test_resnet", "weights": "ssl"}, ssl={"weights": "no.pth", "epochs": 1})
    with pytest.raises(UserError, match=r"no file 'no\.pth'"):
        check_models(spec)


@pytest.mark.parametrize("missing", ["peft", pytest.param("transformers", marks=NEEDS_PEFT)])
def test_light_adapters_without_their_libraries_are_one_line_that_says_what_installs_them(
    missing, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("peft", missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    vary = {"finetune.strategy": {"choice": ["full", "dora"]}}
    line = rf"finetune.strategy: dora needs {missing}: pip install 'finetune-search\[peft\]'"
    with pytest.raises(UserError, match=line):
        check_techniques(spec_of(tmp_path, model=RANDOM, vary=vary))
    check_techniques(spec_of(tmp_path, model=RANDOM))


def test_prompts_for_a_backbone_of_the_space_that_is_no_transformer_are_one_line(tmp_path):
    vary = {"finetune.strategy": {"choice": ["full", "prompt"]}}
    with pytest.raises(
        UserError, match=r"finetune.strategy: 'prompt' is of timm's VisionTransformer, which test_resnet"
    ):
        check_techniques(spec_of(tmp_path, model=RANDOM, vary=vary))
    check_techniques(spec_of(tmp_path, model=RANDOM | {"name": "test_vit"}, vary=vary, data={"image_size": 160}))


@NEEDS_PEFT
def test_layers_are_looked_for_in_the_backbones_of_the_space_alone(tmp_path):
    """The default backbone, a ResNet, has no attention."""
    lora = {"finetune.strategy": "lora"}
    vary = {
        "model.name": {"choice": ["test_vit", "test_vit2"]},
        "finetune.strategy": {"choice": ["full", "lora"]},
        "finetune.targets": {"choice": ["mlp", "attention"], "when": lora},
        "freeze.depth": {"choice": [0, 0.5], "when": lora},
    }
    model = {"weights": "random"}
    check_techniques(spec_of(tmp_path, model=model, vary=vary, data={"image_size": 160}))
    vary["model.name"] = {"choice": ["test_vit", "test_resnet"]}
    with pytest.raises(UserError, match="finetune.targets: test_resnet has no layers of '(mlp|attention)'"):
        check_techniques(spec_of(tmp_path, model=model, vary=vary, data={"image_size": 160}))


@NEEDS_PEFT
def test_light_adapters_for_layers_that_a_backbone_of_the_space_lacks_are_one_line(tmp_path):
    vary = {
        "finetune.strategy": {"choice": ["full", "lora"]},
        "finetune.targets": {"choice": ["auto", "attention"], "when": {"finetune.strategy": "lora"}},
    }
    with pytest.raises(
        UserError, match=r"finetune.targets: test_resnet has no layers of 'attention' above freeze.depth"
    ):
        check_techniques(spec_of(tmp_path, model=RANDOM, vary=vary))
    check_techniques(spec_of(tmp_path, model=RANDOM | {"name": "test_vit"}, vary=vary, data={"image_size": 160}))


@pytest.mark.parametrize("searched", [False, True])
def test_a_teacher_that_is_not_there_is_one_line(tmp_path, searched):
    teachers = [str(tmp_path / "nowhere")]
    sections = {"vary": {"distill.teachers": {"choice": [[], teachers]}}} if searched else {}
    spec = spec_of(tmp_path, model=RANDOM, **sections)
    if not searched:
        spec = spec.model_copy(update={"base": {**spec.base, "distill.teachers": teachers}})
    with pytest.raises(UserError, match="distill.teachers: .*/nowhere is no packaged model, it has no model.json"):
        check_techniques(spec)


def test_zero_shot_of_a_backbone_without_a_text_tower_is_one_line(tmp_path):
    with pytest.raises(UserError, match="^baselines: zero_shot has no class names to begin with; "):
        check_models(spec_of(tmp_path, model=RANDOM, baselines=["zero_shot"]))
