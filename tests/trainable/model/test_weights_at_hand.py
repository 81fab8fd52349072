"""Where weights are: in files, packages and caches that are laid out here as the hub and torch lay them out."""

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from trainable.config.trial import ModelConfig
from trainable.errors import OutageError, UserError
from trainable.model.backbone import create_backbone, input_spec
from trainable.model.weights_at_hand import WeightsAtHand, download_line, licence_text, weights_at_hand

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub's, in a process that may not ask it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def downloaded(hub, *, name, state):
    """Lay a model's file out as a download leaves it."""
    snapshot = hub / f"models--timm--{name}" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")
    return snapshot / "model.safetensors"


def built(name):
    config = ModelConfig(name=name)
    spec = input_spec(config, image_size=None, channels=3)
    return create_backbone(config, spec=spec, generator_seed=0)[0].state_dict()


def test_weights_are_at_hand_where_timm_loads_them_without_asking_the_hub(hub):
    before = weights_at_hand("test_resnet", weights="pretrained")
    assert (before.model, before.kind, before.place, before.licence) == (NAME, "download", f"timm/{NAME}", "apache-2.0")
    with pytest.raises(OutageError, match="cannot be had"):
        built("test_resnet")
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    assert before.num_bytes == 4 * sum(parameter.numel() for parameter in timm.create_model(NAME).parameters())

    file = downloaded(hub, name=NAME, state=state)
    place = weights_at_hand("test_resnet", weights="pretrained")
    assert (place.kind, place.place, place.num_bytes) == ("cache", str(file), file.stat().st_size)
    loaded = built("test_resnet")
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_weights_with_an_address_alone_are_looked_for_in_torchs_cache(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    place = weights_at_hand("legacy_seresnet18", weights="pretrained")
    assert (place.kind, place.place, place.may_be_gated) == ("download", "github.com", False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "seresnet18-4bb0ce65.pth").write_bytes(b"w" * 2_000_000)
    assert weights_at_hand("legacy_seresnet18", weights="pretrained").line() == (
        "legacy_seresnet18.in1k: in the cache, 2 MB; licence apache-2.0"
    )


def test_files_and_packages_have_their_own_size_and_random_weights_no_place(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"w" * 3_400_000)
    place = weights_at_hand("resnet18", weights=str(tmp_path / "w.pth"))
    assert place.line() == f"resnet18: the file {tmp_path / 'w.pth'}, 3 MB"
    packaged = weights_at_hand("tf_efficientnet_lite0", weights="package:efficientnet-lite0")
    assert (packaged.kind, packaged.line()) == ("package", "tf_efficientnet_lite0: installed, 19 MB")
    assert weights_at_hand("resnet18", weights="random") is None
    with pytest.raises(UserError, match="unknown package 'lite9'"):
        weights_at_hand("resnet18", weights="package:lite9")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "convnextv2_atto.fcmae",
            "to be downloaded from the hub, about 14 MB; licence cc-by-nc-4.0, not for commercial use",
        ),
        (
            "convnext_tiny.dinov3_lvd1689m",
            "to be downloaded from the hub, about 111 MB; licence dinov3-license, which has terms of its own: read them",
        ),
    ],
)
def test_a_line_tells_what_is_to_be_downloaded_and_on_which_terms(hub, name, line):
    assert weights_at_hand(name, weights="pretrained").line() == f"{name}: {line}"


def test_a_repository_of_others_may_ask_for_its_terms_to_be_accepted(hub):
    name = next(
        name
        for name in timm.list_pretrained("*")
        if (owner := (timm.get_pretrained_cfg(name).hf_hub_id or "timm/")).partition("/")[0] != "timm" and owner
    )
    place = weights_at_hand(name, weights="pretrained")
    assert place.may_be_gated
    assert place.line().endswith("; the hub may ask you to accept its terms first")


def test_licences_are_told_from_each_other_and_from_none():
    assert licence_text("mit") == "licence mit"
    assert licence_text("fair-noncommercial-research-license").endswith("not for commercial use")
    assert licence_text(None) == licence_text("unknown") == "licence not recorded"


def test_several_downloads_are_added_up():
    places = [
        WeightsAtHand(model=name, kind=kind, place="", num_bytes=num_bytes)
        for name, kind, num_bytes in (("a", "download", 3e6), ("b", "cache", 9e6), ("c", "download", 4e6))
    ]
    assert download_line(places) == "2 of 3 are to be downloaded, about 7 MB in all"
    assert download_line(places[:2]) is None
