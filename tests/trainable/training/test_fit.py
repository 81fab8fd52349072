"""One trial on real photographs of solar cells, small enough for seconds."""

import itertools
import math
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainable import UserError, fit
from trainable.diagnosis.features import frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.statistics.scores import score
from trainable.training import fit as fitting
from trainable.training.checkpoint import BrokenCheckpointError, read_state
from trainable.training.fit import DivergedError, measure_epoch
from trainable.training.setup import set_up
from trainable.training.trained import Trained
from trainable.training.trainer import create_trainer

torch.set_num_threads(1)


def story(epochs):
    return {epoch.number: {k: v for k, v in epoch.metrics.items() if not k.startswith("usage/")} for epoch in epochs}


def weights_after(config, folder, *, stops):
    """Metrics and final weights of a run that is stopped and resumed after each epoch in ``stops``."""
    told, resume = {}, None
    while True:
        for epoch in fit(config, resume_from=resume):
            told |= story([epoch])
            resume = folder / f"epoch_{epoch.number}"
            epoch.save(resume)
            if epoch.number in stops and epoch.ended is None:
                break
        else:
            break
        if epoch.ended:
            break
    return (
        told,
        (resume / "weights.safetensors").read_bytes(),
        (resume / "optimizer.safetensors").read_bytes(),
        averaged(resume),
    )


def averaged(folder):
    path = folder / "average.safetensors"
    return path.read_bytes() if path.is_file() else None


VARIANTS = {
    "plain": {},
    "frozen with dropout and momentum": {
        "freeze": {"depth": 0.5, "bn": "train_stats"},
        "model": {"dropout": 0.3, "drop_path": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.05, "clip_norm": 1.0},
    },
    "mixing and accumulating": {
        "augment": {"strength": "strong", "mixup": 0.4, "cutmix": 1.0, "mix_probability": 0.7},
        "train": {"accumulate": 2},
        "lr_schedule": {"warmup_epochs": 1.5},
        "loss": {"label_smoothing": 0.1, "class_weights": "inverse"},
    },
    "gradual, averaged, anchored": {
        "finetune": {"strategy": "gradual", "order": "bottom_up", "schedule": {"stem": 2, "stage1": 3}, "l2_sp": 0.1},
        "train": {"ema": 0.5, "ema_start": 1},
        "lr_schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
    },
    "two stages of a sampler and a head of random width": {
        "finetune": {"strategy": "two_stage", "classifier_share": 0.5},
        "model": {"head": "mlp", "head_hidden": 8, "dropout": 0.2},
        "train": {"ema": 0.3},
        "data": {"class_sampling": "sqrt"},
        "lr_schedule": {"name": "one_cycle"},
    },
    "LP-FT with LAMB": {
        "finetune": {"strategy": "lp_ft"},
        "optimizer": {"name": "lamb"},
        "loss": {"name": "focal", "focal_alpha": 0.75, "logit_adjustment": 1.0},
        "lr_schedule": {"name": "step"},
    },
    "balanced softmax, then a new head": {
        "finetune": {"strategy": "two_stage", "classifier_share": 0.5},
        "loss": {"name": "balanced_softmax"},
    },
    "from scratch with Muon": {
        "finetune": {"strategy": "scratch"},
        "optimizer": {"name": "muon"},
        "lr_schedule": {"name": "wsd"},
        "augment": {"strength": "none", "auto": "augmix", "erase": 0.5, "mixup": 0.2, "mix_until": 2},
    },
    "small first": {"data": {"early_size": 24, "early_epochs": 2}, "train": {"ema": 0.5}},
    "a transformer, small first": {
        "model": {"name": "test_vit", "weights": "random"},
        "data": {"image_size": 64, "early_size": 32, "early_epochs": 1},
    },
    "norms alone with Lion": {"finetune": {"strategy": "norm_only"}, "optimizer": {"name": "lion", "lr": 1e-4}},
    "biases alone": {"finetune": {"strategy": "bias_only"}, "optimizer": {"name": "adam"}},
    "surgical": {
        "finetune": {"strategy": "surgical", "trainable": ["stage1", "stage2"]},
        "data": {"class_sampling": "balanced"},
    },
    "features of stages": {
        "model": {"name": "resnet10t", "weights": "random", "pool": "stages"},
        "freeze": {"depth": 0.75},
    },
    "the generalised mean of a frozen network": {
        "model": {"name": "test_resnet", "weights": "random", "pool": "gem"},
        "data": {"image_size": 64},
        "freeze": {"depth": 1.0},
        "train": {"ema": 0.5},
    },
    "attention over a network that trains, then a new head": {
        "model": {"name": "test_vit", "weights": "random", "pool": "attentive"},
        "finetune": {"strategy": "two_stage", "classifier_share": 0.5},
    },
    "a cosine head, then a new one": {
        "model": {"name": "test_resnet", "weights": "random", "head": "cosine", "dropout": 0.2},
        "finetune": {"strategy": "two_stage", "classifier_share": 0.5},
    },
    "ended behind a stage": {
        "model": {"name": "resnet10t", "weights": "random", "until": "stage3"},
        "freeze": {"depth": 0.5},
    },
    "probe": {"finetune": {"strategy": "linear_probe"}, "train": {"min_updates": 7, "min_delta": 0.01, "patience": 9}},
}
VARIANTS |= {
    "bottlenecks with dropout, averaged, anchored": {
        "finetune": {"strategy": "adapter", "bottleneck": 8, "adapter_dropout": 0.2, "l2_sp": 0.1, "beside": "biases"},
        "freeze": {"depth": "stage1"},
        "train": {"ema": 0.5, "ema_start": 1, "amp": "bf16"},
        "optimizer": {"layer_decay": 0.8},
    },
    "prompts, small first": {
        "finetune": {"strategy": "prompt", "prompts": 2},
        "model": {"name": "test_vit", "weights": "random", "drop_path": 0.1},
        "freeze": {"depth": 0.5},
        "data": {"image_size": 64, "early_size": 32, "early_epochs": 1},
    },
}
LIGHT = {
    "light adapters with dropout, averaged, anchored": {
        "finetune": {"strategy": "lora", "rank": 4, "adapter_dropout": 0.2, "beside": "norms", "l2_sp": 0.1},
        "freeze": {"depth": "stage1"},
        "train": {"ema": 0.5, "ema_start": 1, "amp": "bf16"},
        "optimizer": {"layer_decay": 0.8},
    },
    "light adapters of a transformer, small first": {
        "finetune": {"strategy": "dora", "rank": 2, "alpha": 3.0, "beside": "biases"},
        "model": {"name": "test_vit", "weights": "random", "drop_path": 0.1},
        "data": {"image_size": 64, "early_size": 32, "early_epochs": 1},
    },
    "light adapters of convolutions with Muon": {"finetune": {"strategy": "dora"}, "optimizer": {"name": "muon"}},
}
NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
VARIANTS |= LIGHT


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=NEEDS_PEFT if name in LIGHT else ()) for name in VARIANTS]
)
def test_stopped_and_resumed_after_every_epoch_equals_the_unbroken_run_to_the_bit(variant, make_config, tmp_path):
    config = make_config(**VARIANTS[variant])
    straight = weights_after(config, tmp_path / "straight", stops=())
    broken = weights_after(config, tmp_path / "broken", stops=(1, 2, 3))
    assert straight[0] == broken[0]
    assert sorted(straight[0]) == [1, 2, 3, 4]
    assert straight[1:] == broken[1:]


def test_the_same_seed_gives_the_same_story_and_another_seed_another(make_config):
    first, second = story(fit(make_config(seed=1))), story(fit(make_config(seed=1)))
    assert first == second
    assert first != story(fit(make_config(seed=2)))


def test_nothing_outside_changes_a_trial_and_a_trial_leaves_the_global_generator_alone(make_config):
    expected = story(fit(make_config()))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    told = {}
    for epoch in fit(make_config()):
        assert torch.equal(torch.get_rng_state(), before)
        told |= story([epoch])
    torch.manual_seed(7)
    assert told == expected


def test_early_stopping_ends_when_nothing_gets_better_and_says_so(make_config):
    still = {"freeze": {"depth": 1.0}, "optimizer": {"lr": 1e-9}}  # no norm moves either
    config = make_config(train={"epochs": 30, "patience": 2}, **still)
    epochs = list(fit(config))
    assert len(epochs) == 3
    assert epochs[-1].ended == "no better val/balanced_accuracy for 2 epochs"


def test_a_finished_trial_resumed_trains_no_more(make_config, tmp_path):
    config = make_config(train={"epochs": 1})
    (epoch,) = fit(config)
    epoch.save(tmp_path / "end")
    generator = fit(config, resume_from=tmp_path / "end")
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "last epoch"


def test_a_loss_that_is_no_number_ends_the_trial(make_config):
    hot = {"name": "sgd", "lr": 10.0, "momentum": 0.99}  # which test_resnet bears
    with pytest.raises(DivergedError, match="the loss became"):
        list(fit(make_config(model={"name": "resnet10t"}, optimizer=hot, train={"epochs": 30})))


def test_a_checkpoint_scores_as_its_epoch_did_and_the_test_split_is_another(make_config, tmp_path):
    config = make_config()
    epoch = next(fit(config))
    epoch.save(tmp_path / "one")
    again = Trained(config=config, checkpoint=tmp_path / "one").score("val")
    assert again == epoch.evaluation
    assert Trained(config=config, checkpoint=tmp_path / "one").score("test").metrics["loss"] != again.metrics["loss"]


@pytest.mark.parametrize(
    "sections",
    [{"freeze": {"depth": 0.5}}, {"freeze": {"depth": 1.0}}, {"freeze": {"depth": 0.5}, "data": {"prefix_gb": 0}}],
)
def test_behind_frozen_layers_a_checkpoint_is_seen_as_its_epoch_was_or_without_rounding(
    make_config, tmp_path, sections
):
    config = make_config(**sections)
    epoch = next(fit(config))
    epoch.save(tmp_path / "one")
    measured = Trained(config=config, checkpoint=tmp_path / "one").predict("val", as_measured=True)
    plain = Trained(config=config, checkpoint=tmp_path / "one").predict("val")
    classes = list(epoch.evaluation.per_class)
    assert score(measured.probabilities, labels=measured.labels, classes=classes) == epoch.evaluation
    assert not np.array_equal(plain.probabilities, measured.probabilities)
    np.testing.assert_allclose(plain.probabilities, measured.probabilities, atol=1e-3)


def test_accumulation_is_a_larger_batch_where_no_batch_norm_sees_it(make_config):
    """A frozen backbone in eval mode sees each image alone; 28 training images make 7 updates of 4 either way."""
    shared = {"freeze": {"depth": 1.0}, "optimizer": {"lr": 0.01}, "loss": {"class_weights": "inverse"}}
    whole = story(fit(make_config(**shared, train={"epochs": 1, "batch_size": 4, "accumulate": 1})))
    parts = story(fit(make_config(**shared, train={"epochs": 1, "batch_size": 2, "accumulate": 2})))
    for name, value in whole[1].items():
        assert parts[1][name] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_a_checkpoint_holds_only_what_trains(make_config, tmp_path):
    sizes = {}
    for depth in (0.0, 1.0):
        next(fit(make_config(freeze={"depth": depth}))).save(tmp_path / str(depth))
        sizes[depth] = (tmp_path / str(depth) / "weights.safetensors").stat().st_size
    assert sizes[1.0] < sizes[0.0] / 50


@NEEDS_PEFT
def test_what_holds_weights_near_their_start_leaves_light_adapters_free(make_config):
    light = {"strategy": "lora", "rank": 2}
    free, held = (story(fit(make_config(finetune=light | pull))) for pull in ({}, {"l2_sp": 10.0}))
    assert free == held
    beside = [story(fit(make_config(finetune=light | {"beside": "norms", "l2_sp": pull}))) for pull in (0.0, 10.0)]
    assert beside[0] != beside[1]


@pytest.mark.parametrize("light", [pytest.param("lora", marks=NEEDS_PEFT), "adapter"])
def test_a_checkpoint_of_light_adapters_takes_a_tenth_of_one_of_all_weights(light, make_config, tmp_path):
    sizes = {}
    for strategy in ("full", light):
        config = make_config(
            model={"name": "vit_tiny_patch16_224", "weights": "random"},
            finetune={"strategy": strategy, "rank": 4, "bottleneck": 8},
            train={"epochs": 1, "batch_size": 14},
        )
        (epoch,) = fit(config)
        epoch.save(tmp_path / strategy)
        sizes[strategy] = sum(file.stat().st_size for file in (tmp_path / strategy).iterdir())
        assert measure_epoch(config, updates=1).checkpoint_bytes == pytest.approx(sizes[strategy], rel=0.1)
    assert sizes[light] < 0.1 * sizes["full"]


@pytest.mark.parametrize("damage", ["missing state", "cut weights", "no folder"])
def test_a_broken_checkpoint_is_told_from_a_whole_one(damage, make_config, tmp_path):
    next(fit(make_config())).save(tmp_path / "one")
    assert read_state(tmp_path / "one")["epoch"] == 1
    match damage:
        case "missing state":
            (tmp_path / "one" / "state.json").unlink()
        case "cut weights":
            content = (tmp_path / "one" / "weights.safetensors").read_bytes()
            (tmp_path / "one" / "weights.safetensors").write_bytes(content[:-100])
        case "no folder":
            shutil.rmtree(tmp_path / "one")
    with pytest.raises(BrokenCheckpointError):
        read_state(tmp_path / "one")


def test_a_checkpoint_of_another_configuration_is_refused(make_config, tmp_path):
    next(fit(make_config(freeze={"depth": 1.0}))).save(tmp_path / "one")
    with pytest.raises(BrokenCheckpointError, match="another configuration"):
        next(fit(make_config(freeze={"depth": 0.0}), resume_from=tmp_path / "one"))


def test_saving_over_a_checkpoint_replaces_it_and_leaves_nothing_else(make_config, tmp_path):
    for epoch in itertools.islice(fit(make_config()), 2):
        epoch.save(tmp_path / "same")
    assert read_state(tmp_path / "same")["epoch"] == 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["same"]


def test_half_precision_of_a_gpu_is_refused_on_a_cpu(make_config):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="train.amp: 'fp16' needs a GPU"):
        next(fit(make_config(train={"amp": "fp16"})))
    with pytest.raises(UserError, match="train.device: 'cuda' was asked for"):
        next(fit(make_config(train={"device": "cuda"})))


def test_bf16_and_channels_last_train_on_a_cpu(make_config):
    (epoch,) = fit(make_config(train={"amp": "bf16", "channels_last": True, "epochs": 1}))
    assert epoch.metrics["val/loss"] > 0


def test_the_probe_scores_frozen_features(make_config):
    evaluation = stage_probe(frozen_features(make_config()), stage="pooled")
    assert set(evaluation.per_class) == {"defective", "functional"}
    assert evaluation == stage_probe(frozen_features(make_config()), stage="pooled")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_gpu_trains_in_every_precision(amp, make_config):
    config = make_config(train={"amp": amp, "channels_last": True, "device": "cuda", "epochs": 2})
    epochs = list(fit(config))
    assert epochs[-1].metrics["usage/peak_memory_bytes"] > 0
    assert all(torch.isfinite(torch.tensor(epoch.metrics["train/loss"])) for epoch in epochs)


@pytest.mark.parametrize(("share", "accumulate"), [(None, 1), (1.0, 1), (0.5, 1), (1.0, 2)])
def test_an_epoch_is_measured_with_all_its_updates(make_config, cell_folder, monkeypatch, share, accumulate):
    """A clock of which each look takes a second: every update and every batch of evaluation does, too."""
    old = {} if share is None else {"rehearsal": str(cell_folder), "rehearsal_share": share}
    config = make_config(data=old, train={"batch_size": 4, "accumulate": accumulate})
    trainer = create_trainer(set_up(config))
    num_updates = sum(1 for _ in trainer.updates(1))
    monkeypatch.setattr(fitting, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    assert measure_epoch(config).seconds == num_updates + math.ceil(trainer.measurer.num_measured / 4)


def test_an_epoch_of_a_single_update_is_measured_as_one(make_config):
    """28 training images in one batch: the first update is all there is to time."""
    whole = measure_epoch(make_config(train={"batch_size": 1000}))
    parts = measure_epoch(make_config(train={"batch_size": 4}))
    assert whole.seconds > parts.seconds / 100
    assert whole.checkpoint_bytes == parts.checkpoint_bytes > 0
