"""Features of small backbones with random weights on twenty small images."""

import numpy as np
import pytest
import torch

from trainable import TrialConfig, UserError
from trainable.data.pack import open_pack
from trainable.diagnosis.features import frozen_features, stage_features, stratified
from trainable.loader.batches import evaluation_batches, normalise
from trainable.model.backbone import input_spec
from trainable.model.network import create_network

torch.set_num_threads(1)

STAGES = ["stage1", "stage2", "stage3", "stage4", "pooled"]

# Side of the images, pixels; widths of the features by stage, as the papers' tables have them.
BACKBONES = {
    "resnet10t": (32, [64, 128, 256, 512, 512]),
    "vit_tiny_patch16_224": (32, [192] * 5),
    "efficientnet_lite0": (32, [24, 40, 112, 320, 1280]),
    "convnext_atto": (32, [40, 80, 160, 320, 320]),
    "mobilenetv3_small_050": (32, [8, 16, 24, 288, 1024]),
    "swin_tiny_patch4_window7_224": (64, [96, 192, 384, 768, 768]),
    "mvitv2_tiny": (32, [768]),
}


@pytest.fixture
def make_config(draw_folder, cache):
    folder = draw_folder({"train/cat": 7, "train/dog": 8, "val/cat": 3, "val/dog": 2, "test/cat": 1, "test/dog": 1})

    def make(name, *, size=32):
        sections = {
            "data": {"path": str(folder), "image_size": size, "cache": cache},
            "model": {"name": name, "weights": "random"},
            "train": {"batch_size": 4, "device": "cpu"},
        }
        return TrialConfig.model_validate(sections)

    return make


def opened(config):
    """Network, pack and input of a configuration."""
    spec = input_spec(config.model, image_size=config.data.image_size, channels=3)
    pack = open_pack(config.data, spec)
    return create_network(config, spec=spec, num_classes=2).eval(), pack, spec


def images_of(pack, spec, *, split):
    return torch.cat([normalise(b.images, spec) for b in evaluation_batches(pack, split, spec=spec, batch_size=100)])


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_its_stages_in_order_and_what_its_head_sees(name, make_config):
    size, widths = BACKBONES[name]
    config = make_config(name, size=size)
    features = frozen_features(config)
    assert list(features.stages) == STAGES[-len(widths) :]
    for split, count in (("train", 15), ("val", 5)):
        found = features.by_split[split]
        assert [values.shape for values in found.values()] == [(count, width) for width in widths]
        assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in found.values())
        assert all(values.std(axis=0).max() > 0 for values in found.values())
    network, pack, spec = opened(config)
    with torch.inference_mode():
        expected = network.features(images_of(pack, spec, split="val")).numpy()
    np.testing.assert_allclose(features.of("pooled", split="val"), expected, rtol=1e-4, atol=1e-5)  # other batch sizes
    again = frozen_features(config)
    assert all(
        np.array_equal(values, again.of(stage, split=split))
        for split, found in features.by_split.items()
        for stage, values in found.items()
    )


def test_some_images_have_the_features_that_they_have_among_all(make_config):
    config = make_config("resnet10t")
    heard = []
    some = frozen_features(config, limit=4, progress=lambda done, total: heard.append((done, total)))
    every = frozen_features(config)
    assert heard[-1] == (8, 8)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    for split, labels in every.labels.items():
        rows = stratified(labels, limit=4)
        assert some.labels[split].tolist() == labels[rows].tolist()
        assert len(rows) == 4
        expected = every.of("pooled", split=split)[rows]
        np.testing.assert_allclose(some.of("pooled", split=split), expected, rtol=1e-4, atol=1e-5)  # other batches


def test_a_stratified_choice_keeps_shares_and_the_rarest_class():
    labels = np.repeat([0, 1, 2], [600, 399, 1])
    rows = stratified(labels, limit=100, seed=3)
    assert np.bincount(labels[rows]).tolist() == pytest.approx([60, 39, 1], abs=1)
    assert np.array_equal(rows, np.unique(rows))
    assert np.array_equal(rows, stratified(labels, limit=100, seed=3))
    assert not np.array_equal(rows, stratified(labels, limit=100, seed=4))
    assert np.array_equal(stratified(labels, limit=1000), np.arange(1000))


def test_a_stage_ends_where_the_plan_says(make_config):
    """A ResNet's stage is a layer; a stage of a ViT of twelve blocks is three of them, without the class token."""
    network, pack, spec = opened(make_config("resnet10t"))
    found = stage_features(network, pack=pack, spec=spec, split="val", batch_size=8)
    with torch.inference_mode():
        resnet = network.backbone
        values = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(images_of(pack, spec, split="val")))))
        for stage, layer in zip(STAGES, (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4), strict=False):
            values = layer(values)
            assert torch.equal(torch.from_numpy(found[stage]), values.mean(dim=(2, 3)))

    network, pack, spec = opened(make_config("vit_tiny_patch16_224"))
    found = stage_features(network, pack=pack, spec=spec, split="val", batch_size=8)
    with torch.inference_mode():
        vit = network.backbone
        tokens = vit._pos_embed(vit.patch_embed(images_of(pack, spec, split="val")))
        for index, block in enumerate(vit.blocks):
            tokens = block(tokens)
            if index % 3 == 2:
                patches = tokens[:, 1:].mean(dim=1)
                torch.testing.assert_close(torch.from_numpy(found[STAGES[index // 3]]), patches)  # order of the sum


def test_the_last_stage_of_a_plain_convolutional_network_is_what_its_head_sees(make_config):
    features = frozen_features(make_config("resnet10t"))
    for split in ("train", "val"):
        np.testing.assert_array_equal(features.of("stage4", split=split), features.of("pooled", split=split))


def test_rows_are_in_the_packs_order_with_their_labels(make_config):
    config = make_config("resnet10t")
    features = frozen_features(config)
    network, pack, spec = opened(config)
    assert features.classes == ("cat", "dog")
    for split in ("train", "val"):
        assert np.array_equal(features.labels[split], pack.labels[pack.indices(split)])
        one_by_one = stage_features(network, pack=pack, spec=spec, split=split, batch_size=1)
        for stage in STAGES:
            np.testing.assert_allclose(features.of(stage, split=split), one_by_one[stage], rtol=1e-4, atol=1e-5)


def test_a_network_in_training_is_seen_as_in_evaluation_and_not_changed(make_config):
    network, pack, spec = opened(make_config("efficientnet_lite0"))
    settings = {"pack": pack, "spec": spec, "split": "train", "batch_size": 5}
    expected = stage_features(network, **settings)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = stage_features(network.train(), **settings)
    assert all(np.array_equal(found[stage], expected[stage]) for stage in STAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_an_unknown_stage_is_refused_with_those_there_are(make_config):
    features = frozen_features(make_config("resnet10t"))
    known = "stage1, stage2, stage3, stage4, pooled; did you mean 'stage4'?"
    with pytest.raises(UserError, match=f"stage: no features of 'stage5', there are {known}".replace("?", r"\?")):
        features.of("stage5", split="val")
