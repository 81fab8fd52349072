import numpy as np
import pytest
import torch
from PIL import Image

from trainable import TrialConfig, UserError
from trainable.diagnosis.transfer_gain import Course, Pair, TransferGain, transfer_gain
from trainable.model.backbone import create_backbone, input_spec


def course(*values, seconds=1.0):
    times = tuple(seconds * (index + 1) for index in range(len(values)))
    return Course(times, {"accuracy": values, "balanced_accuracy": values})


def test_the_transfer_gain_is_pretrained_less_scratch():
    """Both reach 0.75 and, with seed 1, 0.5: pretrained after one epoch of 1 s each, scratch after three and two of 2 s."""
    pairs = (
        Pair(0, course(0.8, 0.92), course(0.5, 0.6, 0.75, seconds=2)),
        Pair(1, course(0.7, 0.68), course(0.4, 0.5, seconds=2)),
    )
    gain = TransferGain(3, pairs)
    assert gain.gain() == pytest.approx((0.17 + 0.2) / 2)
    said = gain.as_dict()
    assert said["pretrained"]["seconds_to_target"] == 1
    assert said["scratch"]["seconds_to_target"] == 5
    assert said["scratch"]["accuracy"] == pytest.approx(0.625)
    assert TransferGain(1, (Pair(0, course(0.5), course(0.6)),)).gain() == pytest.approx(-0.1)


def test_weights_that_block_all_signals_are_a_negative_transfer(tmp_path, cache):
    """All weights 0: no gradient passes, so that the head learns the classes' shares. Light and dark are learnt from scratch."""
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(24):
            pixels = np.random.default_rng(number).integers(level - 50, level + 50, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    sections = {
        "data": {
            "path": str(tmp_path / "images"),
            "image_size": 32,
            "early_size": 24,
            "early_epochs": 4,  # as many as the comparison has
            "cache": cache,
        },
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"batch_size": 4, "ema": 0.5, "ema_start": 4},
    }
    config = TrialConfig.model_validate(sections)
    spec = input_spec(config.model, image_size=32, channels=3)
    backbone = create_backbone(config.model, spec=spec, generator_seed=0)[0]
    torch.save({name: tensor * 0 for name, tensor in backbone.state_dict().items()}, tmp_path / "zeros.pt")
    sections["model"]["weights"] = str(tmp_path / "zeros.pt")
    gain = transfer_gain(TrialConfig.model_validate(sections), num_images=34, epochs=4, seeds=(0,))
    (pair,) = gain.pairs
    assert pair.pretrained.scores["balanced_accuracy"] == (0.5,) * 4
    assert pair.scratch.best("balanced_accuracy") >= 0.75
    assert gain.gain() == 0.5 - pair.scratch.best("balanced_accuracy")
    assert all(
        len(one.seconds) == 4 and list(one.seconds) == sorted(one.seconds) for one in (pair.pretrained, pair.scratch)
    )


def test_random_weights_have_nothing_to_be_compared_with(make_config):
    with pytest.raises(UserError, match="compare: model.weights is random"):
        transfer_gain(make_config(), num_images=28)
