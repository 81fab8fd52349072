"""Heads that begin with class names as text: towers of CLIP's kind with random weights, small ones."""

import json
from importlib.util import find_spec

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn

from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.model.head import create_head
from trainable.model.layers import head_of
from trainable.model.network import create_network
from trainable.model.text_tower import TOWERS, check_text_tower, text_start
from trainable.training.fit import begin, fit

torch.set_num_threads(1)
needs_open_clip = pytest.mark.skipif(
    find_spec("open_clip") is None, reason="needs open_clip: pip install '.[open-clip]'"
)
NAME, SIZE, WIDTH = "vit_xsmall_patch16_clip_224", 32, 256
CLASSES = ("defective", "functional")
OWN_TRANSFORMER = {"image_size": SIZE, "layers": 10, "width": WIDTH, "patch_size": 16, "head_width": 64}
OF_TIMM = {
    "timm_model_name": NAME,
    "timm_model_pretrained": False,
    "timm_pool": "token",
    "timm_proj": "none",
    "image_size": 224,
}


def save_towers(folder, *, vision, width):
    """Write towers as open_clip does, and their backbone as timm does; the towers in eval mode."""
    import open_clip

    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    settings = {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir()
    document = {"model_cfg": settings, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    torch.manual_seed(0)
    towers = open_clip.CLIP(**settings).eval()
    save_file(towers.state_dict(), folder / "open_clip_model.safetensors")
    backbone = timm.create_model(NAME, img_size=vision["image_size"], num_classes=0)
    trunk = getattr(towers.visual, "trunk", None)
    state = checkpoint_filter_fn(towers.state_dict(), backbone) if trunk is None else trunk.state_dict()
    save_file({name: state[name] for name in backbone.state_dict()}, folder / "backbone.safetensors")
    return towers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Towers with a projection from 256 to 128, and the folder they lie in."""
    folder = tmp_path_factory.mktemp("towers") / "tiny"
    return folder, save_towers(folder, vision=OWN_TRANSFORMER, width=128)


def settings_of(folder, *, head="text", name=NAME, **finetune):
    finetune = {"text_weights": str(folder), "templates": ["a photo of a {}."]} | finetune
    return {
        "model": {"name": name, "weights": str(folder / "backbone.safetensors"), "head": head},
        "finetune": finetune,
    }


def config_of(folder, **settings):
    return TrialConfig.model_validate(settings_of(folder, **settings))


def clip_logits(towers, images, *, folder, texts):
    import open_clip

    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    with torch.no_grad():
        image, text = towers.encode_image(images, normalize=True), towers.encode_text(tokens, normalize=True)
        return towers.logit_scale.exp() * image @ text.T


@needs_open_clip
def test_a_text_head_gives_the_zero_shot_logits_of_open_clip(tiny, spec):
    folder, towers = tiny
    config = config_of(folder, class_names={"defective": "broken solar cell"})
    network = create_network(config, spec=spec.__class__(**{**vars(spec), "size": SIZE}), num_classes=2).eval()
    network.set_head(**text_start(config, classes=CLASSES))
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    texts = ["a photo of a broken solar cell.", "a photo of a functional."]
    with torch.no_grad():
        torch.testing.assert_close(
            network(images), clip_logits(towers, images, folder=folder, texts=texts), rtol=0, atol=1e-4
        )


@needs_open_clip
def test_a_tower_without_a_projection_begins_with_the_identity(tmp_path):
    towers = save_towers(tmp_path / "whole", vision=OF_TIMM, width=WIDTH)
    start = text_start(config_of(tmp_path / "whole"), classes=CLASSES)
    assert torch.equal(start["projection"], torch.eye(WIDTH))
    assert start["weight"].shape == (2, WIDTH)
    assert start["scale"].item() == pytest.approx(towers.logit_scale.exp().item())


@needs_open_clip
def test_several_templates_are_averaged_as_directions(tiny):
    folder, towers = tiny
    import open_clip

    texts = ["a bad photo of a tall tree.", "art of the tall tree."]
    with torch.no_grad():
        features = towers.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts))
    mean = (features / features.norm(dim=1, keepdim=True)).sum(dim=0)
    templates = ["a bad photo of a {}.", "art of the {}."]
    start = text_start(config_of(folder, templates=templates), classes=["tall_tree", "x"])
    torch.testing.assert_close(start["weight"][0, :128], mean / mean.norm(), rtol=0, atol=1e-5)
    assert not start["weight"][:, 128:].any()


@needs_open_clip
def test_a_backbone_of_other_weights_is_refused(tiny, tmp_path):
    folder, _ = tiny
    state = timm.create_model(NAME, img_size=SIZE, num_classes=0).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    settings = settings_of(folder)
    settings["model"]["weights"] = str(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"finetune\.text_weights: the image tower of .* gives other features than"):
        text_start(TrialConfig.model_validate(settings), classes=CLASSES)


@needs_open_clip
def test_a_class_that_is_none_is_named_with_the_nearest(tiny):
    with pytest.raises(UserError, match="no class 'defectiv'; did you mean 'defective'"):
        text_start(config_of(tiny[0], class_names={"defectiv": "broken"}), classes=CLASSES)


@needs_open_clip
@pytest.mark.parametrize(
    ("model", "text_weights", "line"),
    [
        ({"name": "resnet18"}, "auto", r"no text tower is known for 'resnet18\."),
        (
            {"name": "vit_base_patch16_clip_224.openai"},
            "auto",
            "did you mean 'vit_base_patch16_clip_quickgelu_224.openai'",
        ),
        ({"name": "vit_base_patch16_siglip_224", "weights": "random"}, "auto", "known for model.weights: random"),
        ({"name": "resnet18"}, "ViT-B-16/unheard_of", "'ViT-B-16/unheard_of' is no folder"),
    ],
)
def test_a_backbone_without_a_text_tower_is_one_line_before_anything_is_loaded(model, text_weights, line):
    settings = {"model": model | {"head": "text"}, "finetune": {"text_weights": text_weights}}
    with pytest.raises(UserError, match=line):
        check_text_tower(TrialConfig.model_validate(settings))


@needs_open_clip
def test_every_tower_is_one_of_open_clips_and_its_backbone_one_of_timms():
    import open_clip

    assert set(TOWERS.values()) <= set(open_clip.list_pretrained())
    assert set(TOWERS) <= set(timm.list_pretrained())
    for name in ("vit_base_patch16_siglip_224.webli", "vit_base_patch16_siglip_224"):
        check_text_tower(TrialConfig.model_validate({"model": {"name": name, "head": "text"}}))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": {"head": "text", "pool": "gem"}}, "model.pool: model.head: text needs the backbone's own features"),
        ({"model": {"head": "text"}, "finetune": {"strategy": "scratch"}}, "finetune.strategy: model.head: text needs"),
        ({"finetune": {"templates": ["a photo"]}}, "'a photo' must hold the place"),
    ],
)
def test_what_a_text_head_cannot_begin_with_is_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        TrialConfig.model_validate(settings)


def test_a_text_head_is_told_by_its_weights_and_its_empty_rows_do_not_train():
    head = create_head(TrialConfig.model_validate({"model": {"head": "text"}}), width=6, num_classes=3, epoch=0)
    with torch.no_grad():
        head[-1].projection[4:] = 0
        head[-1].weight[:, 4:] = 0
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    head(features)[:, 0].sum().backward()
    assert not head[-1].projection.grad[4:].any()
    assert not head[-1].weight.grad[:, 4:].any()
    assert head[-1].projection.grad[:4].any()
    served = head_of({f"head.{name}": tensor for name, tensor in head.state_dict().items()})
    served.load_state_dict(head.state_dict())
    assert torch.equal(served(features), head(features))


@needs_open_clip
def test_zero_shot_is_one_epoch_and_fine_tuning_begins_there(tiny, make_config, tmp_path):
    settings = settings_of(tiny[0], strategy="linear_probe", solver="text")
    (zero_shot,) = fit(make_config(**settings))
    assert zero_shot.ended == "solved"
    begun = begin(make_config(**settings_of(tiny[0], strategy="partial")))
    start, _ = begun.measurer.measure(begun.state.network, epoch=1)
    assert start.metrics["loss"] == pytest.approx(zero_shot.metrics["val/loss"], abs=1e-4)
    trained = begun.one_epoch()
    assert trained.metrics["train/loss"] != pytest.approx(start.metrics["loss"], abs=1e-4)
