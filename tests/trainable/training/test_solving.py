"""A head that is solved for, on real photographs of solar cells."""

import numpy as np
import pytest
import torch

from trainable import UserError, fit
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.training.checkpoint import read_state
from trainable.training.fit import begin, measure_epoch
from trainable.training.lr_range import lr_range
from trainable.training.trained import Trained

torch.set_num_threads(1)


def solving(make_config, solver, **sections):
    finetune = {"strategy": "linear_probe", "solver": solver, **sections.pop("finetune", {})}
    data = {"prefix_dtype": "float32", **sections.pop("data", {})}  # the probes' features are not rounded
    return make_config(finetune=finetune, train={"epochs": 9}, data=data, **sections)


@pytest.mark.parametrize(("solver", "kind"), [("lbfgs", "logreg"), ("closed_form", "ridge")])
def test_a_solved_trial_is_one_epoch_with_the_scores_of_the_probe(solver, kind, make_config):
    config = solving(make_config, solver, finetune={"probe_c": 0.1})
    probe = stage_probe(frozen_features(config), stage=POOLED, kind=kind, c=0.1)
    (epoch,) = fit(config)
    assert (epoch.number, epoch.ended) == (1, "solved")
    for name in ("accuracy", "balanced_accuracy", "loss"):
        assert epoch.metrics[f"val/{name}"] == pytest.approx(probe.metrics[name], abs=1e-3)
    assert 0 < epoch.metrics["train/loss"] < 1


def test_prototypes_are_one_epoch_of_the_nearest_class_mean(make_config, tmp_path):
    config = solving(make_config, "prototypes", model={"head": "cosine"})
    (epoch,) = fit(config)
    assert (epoch.number, epoch.ended) == (1, "solved")
    features = frozen_features(config)
    train, val = (features.of(POOLED, split=split).astype(np.float64) for split in ("train", "val"))
    train, val = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (train, val))
    means = np.array([train[features.labels["train"] == label].mean(axis=0) for label in range(2)])
    named = (val @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    assert epoch.metrics["val/accuracy"] == pytest.approx((named == features.labels["val"]).mean())
    epoch.save(tmp_path / "solved")
    (scale,) = Trained(config=config, checkpoint=tmp_path / "solved").open()[0].network.head[-1].scale.tolist()
    assert 1 <= scale <= 100


def test_a_cosine_head_is_fine_tuned_from_its_prototypes(make_config):
    of_means = next(fit(solving(make_config, "prototypes", model={"head": "cosine"}))).evaluation
    begun = begin(make_config(finetune={"strategy": "lp_ft"}, model={"head": "cosine"}))
    start = begun.measurer.measure(begun.state.network, epoch=1)[0]
    assert start.metrics["accuracy"] == pytest.approx(of_means.metrics["accuracy"])
    assert start.metrics["loss"] == pytest.approx(of_means.metrics["loss"], abs=1e-3)


def test_the_checkpoint_of_a_solved_trial_scores_as_its_epoch_did(make_config, tmp_path):
    config = solving(make_config, "lbfgs")
    (epoch,) = fit(config)
    epoch.save(tmp_path / "solved")
    assert read_state(tmp_path / "solved")["epoch"] == 1
    again = Trained(config=config, checkpoint=tmp_path / "solved").score("val")
    assert again.metrics == pytest.approx(epoch.evaluation.metrics, abs=1e-5)  # batches of another size


def test_what_was_solved_is_not_solved_again(make_config, tmp_path):
    config = solving(make_config, "lbfgs")
    (epoch,) = fit(config)
    epoch.save(tmp_path / "solved")
    generator = fit(config, resume_from=tmp_path / "solved")
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "solved"


def test_a_second_trial_reads_the_features_of_the_first(make_config):
    sections = {"data": {"prefix_gb": 1.0}, "model": {"name": "resnet10t"}}
    first, second = (next(fit(solving(make_config, solver, **sections))) for solver in ("lbfgs", "closed_form"))
    assert first.metrics["usage/prefix_seconds"] > 0
    assert second.metrics["usage/prefix_seconds"] == 0
    assert second.metrics["usage/prefix_saved_seconds"] > 0


def test_a_solved_head_is_timed_by_what_it_takes(make_config):
    assert measure_epoch(solving(make_config, "lbfgs")).views == 1


def test_what_is_not_to_be_solved_is_said(make_config):
    with pytest.raises(
        ValueError, match="finetune.solver: solves for the head alone and needs finetune.strategy: linear_probe"
    ):
        make_config(finetune={"solver": "lbfgs"})
    with pytest.raises(
        ValueError, match="finetune.solver: solves for a linear head and needs model.head: linear, got 'mlp'"
    ):
        solving(make_config, "closed_form", model={"head": "mlp"})
    with pytest.raises(UserError, match="finetune.solver: 'lbfgs' makes no updates, so there is no rate to find"):
        lr_range(solving(make_config, "lbfgs"))
