"""Where a class is seen, of networks as they are served."""

import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from trainable import fit
from trainable.errors import UserError
from trainable.serving.encoded import encoded_images
from trainable.serving.explanation import Explanation, explain
from trainable.serving.package import load_package, package

pytest.importorskip("captum", reason="needs captum: pip install '.[explain]'")
NETWORKS = {
    "a CNN": {},
    "a CNN with channels last": {"model": {"name": "test_convnext"}, "data": {"image_size": 64}},
    "a ViT": {"model": {"name": "test_vit"}, "data": {"image_size": 64}},
    "a ViT with features of its stages": {"model": {"name": "test_vit", "pool": "stages"}, "data": {"image_size": 64}},
    "a CNN that ends behind a stage": {"model": {"name": "resnet10t", "until": "stage3"}, "data": {"image_size": 64}},
}


@pytest.fixture
def served(make_config, tmp_path):
    """A function that gives a classifier trained shortly, and an image."""

    def make(**sections):
        config = make_config(**{"train": {"epochs": 1, "batch_size": 9}, **sections})
        (last,) = fit(config)
        last.save(tmp_path / "checkpoint")
        package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint")
        image = encoded_images(config, split="val")[0].read_bytes()
        return load_package(tmp_path / "package", device="cpu"), image

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_has_a_map_as_large_as_the_image(served, name):
    classifier, image = served(**NETWORKS[name])
    found = explain(classifier, image, label=classifier.classes[1])
    assert found.heat.shape == found.pixels.shape[1:]
    assert found.heat.min() >= 0
    assert found.heat.max() in (0, 1)  # 0 where nothing in the map speaks for the class, which is little trained
    assert found.picture().size == found.heat.shape


def test_where_the_head_sees_the_maps_mean_it_is_grad_cam(served):
    classifier, image = served()
    network = classifier.network
    network.head[-1].weight.abs_()  # all that a ReLU lets through speaks for every class then
    found = explain(classifier, image, label=classifier.classes[0])
    maps = []
    hook = network.backbone.layer4.register_forward_hook(lambda _module, _given, output: maps.append(output))
    network(classifier.normalised(torch.from_numpy(found.pixels)[None]))
    hook.remove()
    weights = network.head[-1].weight[classifier.classes.index(found.label)]
    heat = (weights[:, None, None] * maps[0][0]).sum(dim=0).clamp(min=0)
    grown = interpolate(heat[None, None], size=found.heat.shape, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found.heat, (grown / grown.max()).numpy(), atol=1e-5)


def test_views_of_a_finish_are_left_out_and_there_again_after(served):
    classifier, image = served()
    before = explain(classifier, image, label=classifier.classes[0]).heat
    classifier.network.views = [(1, ())]
    np.testing.assert_array_equal(explain(classifier, image, label=classifier.classes[0]).heat, before)
    assert classifier.network.views == [(1, ())]


def test_a_network_without_a_map_is_told(served):
    classifier, image = served()
    classifier.network.backbone.feature_info = []
    with pytest.raises(UserError, match="^--explain: the network has no map"):
        explain(classifier, image, label=classifier.classes[0])


def test_a_missing_library_is_one_line(served, monkeypatch):
    classifier, image = served()
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"^--explain needs captum: pip install 'finetune-search\[explain\]'"):
        explain(classifier, image, label=classifier.classes[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_picture_is_the_image_where_nothing_is_seen_and_red_where_all_is(channels):
    pixels = np.full((channels, 2, 2), 100, dtype=np.uint8)
    heat = np.array([[0, 1], [0, 0]], dtype=np.float32)
    shown = np.asarray(Explanation(label="a", pixels=pixels, heat=heat).picture())
    assert shown[0, 0].tolist() == [100, 100, 100]
    assert shown[0, 1].tolist() == [201, 66, 35]
