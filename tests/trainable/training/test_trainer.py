"""What each technique does to the numbers of a trial, on real photographs of solar cells."""

import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trainable import fit
from trainable.diagnosis.features import frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.loader.batches import image_weights, train_loader
from trainable.metrics import epochs_to_converge, epochs_waited
from trainable.training.setup import set_up
from trainable.training.trained import Trained

torch.set_num_threads(1)


def first_epoch(config, folder):
    epoch = next(fit(config))
    epoch.save(folder)
    return epoch


def test_lp_ft_starts_with_the_scores_of_the_probe(make_config):
    config = make_config(
        data={"prefix_dtype": "float32"},  # what the probe sees is not rounded
        finetune={"strategy": "lp_ft"},
        freeze={"depth": 1.0},
        optimizer={"lr": 1e-12},
        augment={"strength": "none"},
    )
    probe = stage_probe(frozen_features(config), stage="pooled")
    epoch = next(fit(config))
    for name in ("accuracy", "balanced_accuracy", "loss"):
        assert epoch.metrics[f"val/{name}"] == pytest.approx(probe.metrics[name], abs=1e-3)


def test_lp_ft_trains_on_from_the_probe_whatever_trains(make_config):
    """With a batch's own statistics the solved head would meet other features, at a loss many times the probe's."""
    whole = make_config(finetune={"strategy": "lp_ft"}, optimizer={"lr": 1e-12}, augment={"strength": "none"})
    head = whole.model_copy(update={"freeze": whole.freeze.model_copy(update={"depth": 1.0})})
    assert next(fit(whole)).metrics["train/loss"] == pytest.approx(next(fit(head)).metrics["train/loss"], rel=1e-3)


def test_l2_sp_holds_the_backbone_near_its_start(make_config, tmp_path):
    def weights(l2_sp, lr):
        rule = {"name": "sgd", "lr": lr, "momentum": 0.0, "weight_decay": 0.0}
        config = make_config(finetune={"l2_sp": l2_sp}, optimizer=rule, lr_schedule={"name": "constant"})
        for epoch in fit(config):
            epoch.save(tmp_path / "last")
        found = load_file(tmp_path / "last" / "weights.safetensors")
        return {name: t for name, t in found.items() if name.startswith("backbone.") and name.endswith("weight")}

    start, free, held = weights(0.0, 1e-12), weights(0.0, 0.05), weights(10.0, 0.05)
    distances = [sum(float((end[name] - start[name]).square().sum()) for name in start) for end in (free, held)]
    assert distances[1] < 0.5 * distances[0]


def test_the_average_follows_the_weights_by_the_share_left_after_an_epoch(make_config, tmp_path):
    """Five updates an epoch: after the first copies the weights, four take the average to them by 1 - d, d = 0.5^(1/5)."""
    config = make_config(train={"epochs": 2, "ema": 0.5}, augment={"strength": "none"})
    epoch = first_epoch(config, tmp_path / "one")
    weights, average = (load_file(tmp_path / "one" / f"{name}.safetensors") for name in ("weights", "average"))
    assert weights.keys() == average.keys()
    name = "head.1.weight"
    assert not torch.equal(weights[name], average[name])
    scored = Trained(config=config, checkpoint=tmp_path / "one").score("val")
    assert scored.metrics == epoch.evaluation.metrics
    raw = make_config(train={"epochs": 2}, augment={"strength": "none"})
    first_epoch(raw, tmp_path / "raw")
    assert torch.equal(load_file(tmp_path / "raw" / "weights.safetensors")[name], weights[name])


def test_an_average_that_has_not_begun_scores_the_weights_themselves(make_config, tmp_path):
    late = make_config(train={"epochs": 2, "ema": 0.5, "ema_start": 1})
    plain = make_config(train={"epochs": 2})
    first, without = first_epoch(late, tmp_path / "late"), first_epoch(plain, tmp_path / "plain")
    assert first.evaluation == without.evaluation
    assert Trained(config=late, checkpoint=tmp_path / "late").score("val") == without.evaluation


def test_logit_adjustment_favours_the_rare_class(make_config):
    def recall(tau):
        config = make_config(
            loss={"logit_adjustment": tau}, optimizer={"lr": 1e-12}, train={"epochs": 1}, augment={"strength": "none"}
        )
        (epoch,) = fit(config)
        return {name: scores["recall"] for name, scores in epoch.evaluation.per_class.items()}

    # The head begins at zero logits, so the prior alone decides: the rarer class wins everything.
    assert recall(1.0) == {"defective": 1.0, "functional": 0.0}


def test_balanced_softmax_takes_the_shares_of_the_training_images(make_config):
    """In the one update of an epoch all logits are still 0, so the loss is the entropy of the shares."""
    config = make_config(
        loss={"name": "balanced_softmax"}, train={"epochs": 1, "batch_size": 64}, augment={"strength": "none"}
    )
    counts = set_up(config).counts
    (epoch,) = fit(config)
    shares = (counts / counts.sum()).double()
    assert shares[0] != shares[1]
    assert epoch.metrics["train/loss"] == pytest.approx(-float((shares * shares.log()).sum()), abs=1e-6)


@pytest.mark.parametrize(
    ("sampler", "share"), [("balanced", 0.5), ("sqrt", 900**0.5 / (900**0.5 + 10)), ("effective", 0.8618)]
)
def test_a_sampler_draws_each_class_by_its_rule(sampler, share):
    """900 images against 100; effective numbers 593.6 and 95.2 with β = 0.999."""
    labels = np.array([0] * 900 + [1] * 100)
    weights = image_weights(labels, sampler=sampler)
    assert weights[:900].sum() / weights.sum() == pytest.approx(share, abs=1e-3)


def test_a_balanced_epoch_has_as_many_images_and_every_epoch_others(make_config):
    from trainable.data.pack import open_pack
    from trainable.model.backbone import input_spec

    config = make_config()
    spec = input_spec(config.model, image_size=32, channels=3)
    pack = open_pack(config.data, spec)
    options = {
        "augment": config.augment.model_copy(update={"strength": "none"}),
        "spec": spec,
        "batch_size": 9,
        "seed": 0,
    }
    loader = train_loader(pack, sampler=lambda epoch: "balanced" if epoch < 60 else "shuffle", **options)
    labels = [torch.cat([batch.labels for batch in loader.epoch(epoch)]) for epoch in range(60)]
    assert {len(epoch) for epoch in labels} == {len(pack.indices("train"))}
    assert not torch.equal(labels[0], labels[1])
    assert float(torch.cat(labels).float().mean()) == pytest.approx(0.5, abs=0.05)
    shuffled = torch.cat([batch.labels for batch in loader.epoch(60)])
    assert sorted(shuffled.tolist()) == sorted(pack.labels[pack.indices("train")].tolist())


def test_a_batch_too_large_for_the_updates_wanted_is_lowered_said_and_recorded(make_config, caplog):
    config = make_config(train={"batch_size": 256, "min_updates": 4, "epochs": 1})
    with caplog.at_level(logging.WARNING):
        (epoch,) = fit(config)
    assert epoch.metrics["usage/batch_size"] == 7  # 28 training images in 4 updates
    assert "train.batch_size: 256 is lowered to 7" in caplog.text


def test_patience_asks_for_min_delta():
    values = {1: 0.50, 2: 0.51, 3: 0.52, 4: 0.60}
    assert epochs_waited(values, metric="val/accuracy", min_delta=0.0) == 0
    assert epochs_waited({e: v for e, v in values.items() if e < 4}, metric="val/accuracy", min_delta=0.05) == 2
    assert epochs_waited(values, metric="val/accuracy", min_delta=0.05) == 0
    assert epochs_waited({1: 0.5, 2: 0.45}, metric="val/loss", min_delta=0.1) == 1


def test_ones_own_augmentation_is_found_by_its_import_path(make_config, tmp_path, monkeypatch):
    (tmp_path / "own_views.py").write_text("def black(image):\n    return image * 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "1")
    config = make_config(augment={"custom": ["own_views:black"]}, train={"epochs": 1})
    plain = make_config(train={"epochs": 1})
    assert next(fit(config)).metrics["train/loss"] != next(fit(plain)).metrics["train/loss"]


def test_convergence_is_the_first_epoch_near_the_best():
    assert epochs_to_converge({1: 0.5, 2: 0.86, 3: 0.9, 4: 0.88}, metric="val/accuracy") == 2
    assert epochs_to_converge({1: 1.0, 2: 0.42, 3: 0.4}, metric="val/loss") == 2
    assert epochs_to_converge({}, metric="val/loss") is None
