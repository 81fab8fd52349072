"""Probes of real features, and of clouds of points whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from trainable import TrialConfig, UserError
from trainable.diagnosis.features import frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.statistics.probe import fit_probe, solved_head

torch.set_num_threads(1)


@pytest.fixture
def config(draw_folder, cache):
    counts = {"train/cat": 9, "train/dog": 6, "train/eel": 4, "val/cat": 3, "val/dog": 3, "val/eel": 3}
    counts |= {"test/cat": 1, "test/dog": 1, "test/eel": 1}
    sections = {
        "data": {"path": str(draw_folder(counts)), "image_size": 32, "cache": cache},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"batch_size": 4, "device": "cpu"},
    }
    return TrialConfig.model_validate(sections)


def clouds(*, num_classes, apart=1.0, count=60, width=7, seed=0):
    """Overlapping Gaussian clouds, one a class, whose features differ in place and scale."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), count // num_classes)
    centres = apart * generator.standard_normal((num_classes, width))
    points = centres[labels] + generator.standard_normal((len(labels), width))
    return (points * np.logspace(-2, 2, width) + np.linspace(-5, 5, width)).astype(np.float32), labels


def test_every_stage_is_scored_and_the_pooled_one_as_the_linear_probe_does(config):
    features = frozen_features(config)
    scores = {stage: stage_probe(features, stage=stage) for stage in features.stages}
    assert list(scores) == ["stage1", "stage2", "stage3", "stage4", "pooled"]
    assert scores["pooled"] == stage_probe(frozen_features(config), stage="pooled")
    again = frozen_features(config)
    assert scores == {stage: stage_probe(again, stage=stage) for stage in again.stages}
    scaler = StandardScaler().fit(features.of("stage2", split="train"))
    known = LogisticRegression(max_iter=2000, class_weight="balanced")
    known.fit(scaler.transform(features.of("stage2", split="train")), features.labels["train"])
    right = known.score(scaler.transform(features.of("stage2", split="val")), features.labels["val"])
    assert scores["stage2"].metrics["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("kind", ["logreg", "linear_svm", "ridge"])
def test_a_rare_class_weighs_as_much_as_a_frequent_one(kind):
    """100 points around -1 and 4 around +1, of the same spread: balanced, the border is near 0, else far to the right."""
    spread = np.linspace(-2, 2, 100)
    features = np.concatenate([spread - 1, np.linspace(-2, 2, 4) + 1])[:, None].astype(np.float32)
    labels = np.repeat([0, 1], [100, 4])
    probe = fit_probe(features, labels, kind=kind)
    grid = np.linspace(-3, 3, 601, dtype=np.float32)[:, None]
    border = grid[probe.probabilities(grid, num_classes=2).argmax(axis=1).argmax()].item()
    assert abs(border) < 0.35


@pytest.mark.parametrize("kind", ["logreg", "linear_svm", "ridge"])
def test_a_smaller_c_pulls_the_coefficients_to_zero(kind):
    features, labels = clouds(num_classes=3)
    strict, free = (np.abs(fit_probe(features, labels, kind=kind, c=c).pipeline[-1].coef_).max() for c in (1e-3, 1.0))
    assert strict < free / 2


def test_neighbours_are_all_images_where_there_are_few():
    features, labels = clouds(num_classes=2, count=4, apart=5.0)
    probabilities = fit_probe(features[:3], labels[:3], kind="knn").probabilities(features, num_classes=2)
    np.testing.assert_allclose(probabilities, [[2 / 3, 1 / 3]] * 4)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_solved_head_on_raw_features_is_the_probe(num_classes):
    features, labels = clouds(num_classes=num_classes)
    weight, bias = solved_head(features, labels, num_classes=num_classes, c=0.3)
    assert (weight.dtype, weight.shape) == (torch.float32, (num_classes, 7))
    assert (bias.dtype, bias.shape) == (torch.float32, (num_classes,))
    logits = torch.from_numpy(features) @ weight.T + bias
    pipeline = fit_probe(features, labels, kind="logreg", c=0.3).pipeline
    decision = torch.from_numpy(pipeline.decision_function(features)).float()
    margin = logits[:, 1] - logits[:, 0] if num_classes == 2 else logits
    torch.testing.assert_close(margin, decision, atol=1e-4, rtol=1e-4)
    expected = torch.from_numpy(pipeline.predict_proba(features)).float()
    torch.testing.assert_close(logits.softmax(dim=1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_head_in_closed_form_is_the_ridge_probe(num_classes):
    features, labels = clouds(num_classes=num_classes)
    weight, bias = solved_head(features, labels, num_classes=num_classes, c=0.3, kind="ridge")
    logits = torch.from_numpy(features) @ weight.T + bias
    expected = fit_probe(features, labels, kind="ridge", c=0.3).probabilities(features, num_classes=num_classes)
    torch.testing.assert_close(logits.softmax(dim=1), torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def test_the_solved_head_minimises_the_balanced_and_penalised_loss():
    """The gradient of what a logistic regression minimises, by torch: zero at the solution, on standardised features."""
    features, labels = clouds(num_classes=3)
    keep = np.concatenate([np.flatnonzero(labels == k)[: 20 - 6 * k] for k in range(3)])
    features, labels = features[keep], labels[keep]
    mean, deviation = features.astype(np.float64).mean(axis=0), features.astype(np.float64).std(axis=0)
    weight, bias = solved_head(features, labels, num_classes=3, c=0.5)
    inner = (weight.double() * torch.from_numpy(deviation)).requires_grad_()
    offset = (bias.double() + weight.double() @ torch.from_numpy(mean)).requires_grad_()
    logits = torch.from_numpy((features - mean) / deviation) @ inner.T + offset
    balance = torch.from_numpy(len(labels) / (3 * np.bincount(labels)))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), weight=balance, reduction="sum")
    (0.5 * loss + inner.square().sum() / 2).backward()
    tolerance = 0.5 * len(labels) * 1e-4  # the solver ends at 1e-4 in the gradient of the mean loss
    assert float(inner.grad.abs().max()) < tolerance
    assert float(offset.grad.abs().max()) < tolerance


def test_a_feature_that_never_varies_weighs_nothing_in_the_solved_head():
    features, labels = clouds(num_classes=3)
    dead = np.column_stack([features, np.full(60, 3.7, np.float32), np.zeros(60, np.float32)])
    weight, bias = solved_head(dead, labels, num_classes=3)
    assert (weight[:, 7:] == 0).all()
    expected_weight, expected_bias = solved_head(features, labels, num_classes=3)
    torch.testing.assert_close(weight[:, :7], expected_weight, rtol=1e-2, atol=1e-3)  # the solver's own tolerance
    torch.testing.assert_close(bias, expected_bias, rtol=1e-2, atol=1e-3)


def test_a_class_without_images_is_all_but_impossible_to_the_solved_head():
    features, labels = clouds(num_classes=2)
    weight, bias = solved_head(features, labels * 2, num_classes=4)
    probabilities = (torch.from_numpy(features) @ weight.T + bias).softmax(dim=1)
    assert (probabilities[:, [1, 3]] < 1e-8).all()
    expected = fit_probe(features, labels, kind="logreg").probabilities(features, num_classes=2)
    torch.testing.assert_close(probabilities[:, [0, 2]], torch.from_numpy(expected).float(), atol=1e-4, rtol=0)


def test_what_cannot_be_probed_is_said_in_a_line(config):
    features, labels = clouds(num_classes=2)
    with pytest.raises(
        UserError, match="probe: unknown kind 'ridgy', there are logreg, linear_svm, ridge, knn; did you mean"
    ):
        fit_probe(features, labels, kind="ridgy")
    with pytest.raises(UserError, match="probe: the training split has images of a single class"):
        fit_probe(features, labels * 0, kind="logreg")
    with pytest.raises(
        UserError, match="stage: no features of 'layer4', there are stage1, stage2, stage3, stage4, pooled"
    ):
        stage_probe(frozen_features(config), stage="layer4")
