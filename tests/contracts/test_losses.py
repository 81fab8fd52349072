"""What every loss keeps, whatever its settings: it is finite, its gradient is its own, a label is its one-hot row."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from trainable.config.trial import LossConfig
from trainable.training.losses import CLASS_WEIGHTS, LOSSES, create_loss

# What makes it the plain cross-entropy, where its defaults do not: settings, or classes of the same size.
TRIVIAL = {"focal": {"focal_gamma": 0.0}, "logit_adjusted": {"logit_tau": 0.0}}
OF_ONE_SIZE = {"balanced_softmax": torch.tensor([40, 40, 40])}
COUNTS = torch.tensor([90, 25, 5])
LABELS = torch.tensor([0, 2, 1, 0])
MIXED = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
SETTINGS = list(itertools.product(LOSSES, CLASS_WEIGHTS, [0.0, 0.1]))


def make(name, weights="none", smoothing=0.0, counts=COUNTS, **values):
    config = LossConfig(name=name, class_weights=weights, label_smoothing=smoothing, **values)
    return create_loss(config, counts=counts)


def logits_of(scale=1.0):
    return scale * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "weights", "smoothing"), SETTINGS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
def test_loss_and_gradient_are_finite_and_no_loss_is_below_0(name, weights, smoothing, scale, targets):
    loss, logits = make(name, weights, smoothing), logits_of(scale).requires_grad_()
    found = loss.sum(logits, targets)
    found.backward()
    assert found.ndim == 0
    assert torch.isfinite(found)
    assert found >= 0
    assert torch.isfinite(logits.grad).all()
    assert loss.weight(targets) > 0


@pytest.mark.parametrize(("alpha", "weights"), [(None, "inverse"), (0.95, "none")])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("certain", [10.0, 1e4, 1e30])
def test_focal_loss_of_certain_answers_right_and_wrong_is_finite_with_its_gradient(
    alpha, weights, gamma, smoothing, certain
):
    loss = make("focal", weights, smoothing, focal_gamma=gamma, focal_alpha=alpha)
    for answers in (LABELS, (LABELS + 1) % 3):
        logits = (certain * one_hot(answers, 3).float()).requires_grad_()
        value = loss.sum(logits, LABELS)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()


def test_class_weights_weigh_what_smoothing_gives_to_a_class_as_torch_does():
    """So a rare class also draws on the images of others: half of this image's loss, at a smoothing of 0.1."""
    loss = create_loss(LossConfig(class_weights="inverse", label_smoothing=0.1), counts=torch.tensor([950, 50]))
    logits, label = torch.zeros(1, 2), torch.tensor([0])
    expected = cross_entropy(logits, label, weight=torch.tensor([0.1, 1.9]), label_smoothing=0.1)
    torch.testing.assert_close(loss.weights, torch.tensor([0.1, 1.9]))
    torch.testing.assert_close(loss.sum(logits, label) / loss.weight(label), expected)
    smoothed = 0.05 * 1.9 / (0.95 * 0.1 + 0.05 * 1.9)
    assert smoothed == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "weights", "smoothing"), SETTINGS)
@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
def test_the_gradient_is_what_a_small_change_does(name, weights, smoothing, targets):
    """Central differences of 1/64, whose own error is about its square times the third derivative, below 2·10⁻³."""
    loss, logits, step = make(name, weights, smoothing), logits_of().requires_grad_(), 1 / 64
    loss.sum(logits, targets).backward()
    for row, column in itertools.product(range(4), range(3)):
        change = torch.zeros(4, 3)
        change[row, column] = step
        with torch.no_grad():
            slope = (loss.sum(logits + change, targets) - loss.sum(logits - change, targets)) / (2 * step)
        torch.testing.assert_close(logits.grad[row, column], slope, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "weights", "smoothing"), SETTINGS)
def test_a_label_is_its_one_hot_row(name, weights, smoothing):
    loss, rows = make(name, weights, smoothing), one_hot(LABELS, 3).float()
    assert torch.equal(loss.sum(logits_of(), LABELS), loss.sum(logits_of(), rows))
    assert torch.equal(loss.weight(LABELS), loss.weight(rows))


@pytest.mark.parametrize(("name", "weights", "smoothing"), SETTINGS)
def test_a_batch_is_the_sum_of_its_images(name, weights, smoothing):
    loss, logits = make(name, weights, smoothing), logits_of()
    alone = [loss.sum(logits[[row]], MIXED[[row]]) for row in range(4)]
    torch.testing.assert_close(loss.sum(logits, MIXED), torch.stack(alone).sum())
    shares = [loss.weight(MIXED[[row]]) for row in range(4)]
    torch.testing.assert_close(loss.weight(MIXED), torch.stack(shares).sum())


@pytest.mark.parametrize(("name", "weights", "smoothing"), SETTINGS)
def test_with_trivial_settings_it_is_torchs_cross_entropy(name, weights, smoothing):
    """Of soft targets only without weights: there torch divides by the number of images instead."""
    loss = make(name, weights, smoothing, OF_ONE_SIZE.get(name, COUNTS), **TRIVIAL.get(name, {}))
    for targets in (LABELS, MIXED) if weights == "none" else (LABELS,):
        found = loss.sum(logits_of(), targets) / loss.weight(targets)
        expected = cross_entropy(logits_of(), targets, weight=loss.weights, label_smoothing=smoothing)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "weights"), list(itertools.product(LOSSES, CLASS_WEIGHTS)))
def test_the_right_answer_costs_less_than_a_wrong_one(name, weights):
    loss, labels = make(name, weights), torch.tensor([0, 1, 2])
    right, wrong = 5.0 * torch.eye(3), 5.0 * torch.eye(3)[[1, 2, 0]]
    assert loss.sum(right, labels) < loss.sum(torch.zeros(3, 3), labels) < loss.sum(wrong, labels)
