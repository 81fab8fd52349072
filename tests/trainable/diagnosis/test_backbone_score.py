"""Scores of small random backbones on forty real cells."""

from itertools import count

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from trainable import TrialConfig
from trainable.diagnosis.backbone_score import draw_sample, outlook, score_backbone
from trainable.diagnosis.features import frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.statistics.transferability import h_score, logme

torch.set_num_threads(1)


@pytest.fixture
def make_config(cell_folder, cache):
    def make(name="test_resnet", *, size=32, weights="random", **sections):
        data = {"path": str(cell_folder), "image_size": size, "cache": cache}
        model = {"name": name, "weights": weights}
        train = {"batch_size": 8, "device": "cpu", "amp": "off"}
        return TrialConfig.model_validate({"data": data, "model": model, "train": train} | sections)

    return make


def no_clock():
    raise AssertionError("something was computed")


def test_a_score_on_all_images_is_that_of_the_features_that_a_diagnosis_has(make_config):
    config = make_config()
    features = frozen_features(config)
    values, labels = features.of("pooled", split="train"), features.labels["train"]
    found = score_backbone(config, sample=draw_sample(config, limit=None))
    assert found.logme == pytest.approx(logme(values, labels), rel=1e-4)  # batches of other sizes have other last bits
    assert found.h_score == pytest.approx(h_score(values, labels), rel=1e-3)
    assert found.probe == stage_probe(features, stage="pooled").metrics["balanced_accuracy"]
    assert (found.num_images, found.image_size) == (len(labels), 32)
    assert found.parameters == sum(p.numel() for p in timm.create_model("test_resnet", num_classes=0).parameters())
    assert 0 < found.seconds_per_image < 1


def test_a_second_search_of_the_same_data_computes_nothing_anew(make_config):
    config = make_config()
    sample = draw_sample(config, limit=20)
    assert outlook(config, sample=sample).score is None
    first = score_backbone(config, sample=sample)
    other = make_config(finetune={"strategy": "linear_probe"}, optimizer={"lr": 0.5})
    assert score_backbone(other, sample=draw_sample(other, limit=20), now=no_clock) == first
    known = outlook(config, sample=sample)
    assert (known.score, known.gmacs) == (first, first.gmacs)


def test_what_is_kept_is_of_these_images_weights_and_size(make_config, tmp_path):
    first = make_config()
    sample = draw_sample(first, limit=20)
    score_backbone(first, sample=sample)
    torch.manual_seed(5)
    file = str(tmp_path / "w.safetensors")
    save_file(timm.create_model("test_resnet").state_dict(), file)
    others = [make_config(size=48), make_config("test_resnet", weights=file), make_config("test_vit", size=64)]
    assert all(outlook(config, sample=sample).score is None for config in others)
    assert outlook(first, sample=draw_sample(first, limit=12)).score is None
    scored = score_backbone(others[1], sample=sample)
    save_file(timm.create_model("test_resnet").state_dict(), file)
    assert outlook(others[1], sample=sample).score is None
    assert scored.gmacs == pytest.approx(outlook(first, sample=sample).gmacs)


def test_a_file_that_is_no_score_is_computed_anew(make_config, tmp_path):
    config = make_config()
    sample = draw_sample(config, limit=12)
    first = score_backbone(config, sample=sample)
    (file,) = (tmp_path / "cache" / "backbones").glob("*.json")
    for text in ("{", '{"logme": 3}', "[]"):
        file.write_text(text)
        assert score_backbone(config, sample=sample).probe == first.probe


def test_one_that_takes_longer_than_there_is_time_is_given_up_and_not_kept(make_config, tmp_path):
    config = make_config()
    sample = draw_sample(config, limit=20)
    assert score_backbone(config, sample=sample, seconds=5, now=count().__next__) is None
    assert not (tmp_path / "cache" / "backbones").exists()
    assert score_backbone(config, sample=sample, seconds=100, now=count().__next__).probe > 0


def test_a_sample_has_the_classes_in_proportion(make_config):
    whole, drawn = (draw_sample(make_config(), limit=limit) for limit in (None, 9))
    assert sum(map(len, whole.rows.values())) + len(whole.pack.indices("test")) == 40
    assert {split: len(rows) for split, rows in drawn.rows.items()} == {
        "train": 9,
        "val": min(9, len(whole.rows["val"])),
    }
    assert np.bincount(drawn.pack.labels[drawn.rows["train"]]).tolist() == [3, 6]
