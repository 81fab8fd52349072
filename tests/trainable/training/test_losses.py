import pytest
import torch
from timm.loss.class_weights import compute_class_weights
from torch.nn.functional import cross_entropy, one_hot

from trainable.config.trial import LossConfig
from trainable.loader.batches import BETA
from trainable.training.losses import CrossEntropy, class_weights, create_balanced_loss, create_loss, prior_shift

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.0], [0.0, 0.0, 5.0]])
LABELS = torch.tensor([0, 2, 1, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 1.0, 3.0]])
def test_hard_labels_give_torchs_cross_entropy(weights, smoothing):
    loss = CrossEntropy(torch.tensor(weights), label_smoothing=smoothing)
    expected = cross_entropy(LOGITS, LABELS, weight=torch.tensor(weights), label_smoothing=smoothing)
    torch.testing.assert_close(loss.sum(LOGITS, LABELS) / loss.weight(LABELS), expected, rtol=1e-6, atol=0)


def test_a_one_hot_row_is_its_label_under_weights_where_torchs_own_is_not():
    weights = torch.tensor([0.2, 1.0, 3.0])
    soft = one_hot(LABELS, 3).float()
    loss = CrossEntropy(weights, label_smoothing=0.1)
    assert torch.equal(loss.sum(LOGITS, soft) / loss.weight(soft), loss.sum(LOGITS, LABELS) / loss.weight(LABELS))
    assert not torch.isclose(cross_entropy(LOGITS, soft, weight=weights), cross_entropy(LOGITS, LABELS, weight=weights))


def test_soft_targets_without_weights_give_torchs_cross_entropy():
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    loss = CrossEntropy(torch.ones(3))
    torch.testing.assert_close(
        loss.sum(LOGITS, soft) / loss.weight(soft), cross_entropy(LOGITS, soft), rtol=1e-6, atol=0
    )


def test_class_weights_follow_the_counts_and_have_mean_one():
    counts = torch.tensor([100, 25])
    assert class_weights(counts, config=LossConfig(class_weights="none")).tolist() == [1.0, 1.0]
    assert class_weights(counts, config=LossConfig(class_weights="inverse")).tolist() == pytest.approx([0.4, 1.6])
    softened = LossConfig(class_weights="inverse", class_weight_power=0.5)
    assert class_weights(counts, config=softened).tolist() == pytest.approx([2 / 3, 4 / 3])


@pytest.mark.parametrize(
    ("ours", "theirs", "power"),
    [("inverse", "inv_freq", 1.0), ("inverse", "inv_freq", 0.5), ("effective", "effective_num", 1.0)],
)
def test_class_weights_equal_timms(ours, theirs, power):
    counts = torch.tensor([3000, 120, 7, 0])
    _, expected = compute_class_weights(counts, num_samples=3127, method=theirs, power=power, beta=BETA)
    found = class_weights(counts, config=LossConfig(class_weights=ours, class_weight_power=power))
    torch.testing.assert_close(found, expected)


def test_focal_loss_weighs_an_image_by_how_wrong_it_is():
    p = LOGITS.softmax(dim=1)[torch.arange(4), LABELS]
    loss = CrossEntropy(torch.ones(3), gamma=2.0)
    torch.testing.assert_close(loss.sum(LOGITS, LABELS), ((1 - p) ** 2 * -p.log()).sum())
    hard = loss.sum(LOGITS, LABELS) / loss.weight(LABELS)
    soft = one_hot(LABELS, 3).float()
    torch.testing.assert_close(hard, loss.sum(LOGITS, soft) / loss.weight(soft))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_finite_gradient_where_an_image_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]], requires_grad=True)
    CrossEntropy(torch.ones(2), gamma=gamma).sum(logits, torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().sum() > 0


def test_focal_alpha_is_the_weight_of_the_rarest_class():
    config = LossConfig(name="focal", focal_alpha=0.75)
    assert class_weights(torch.tensor([90, 10]), config=config).tolist() == pytest.approx([0.5, 1.5])
    assert create_loss(config, counts=torch.tensor([90, 10])).gamma == 2.0
    assert create_loss(LossConfig(), counts=torch.tensor([90, 10])).gamma == 0.0


def test_logit_adjustment_makes_predictions_of_the_prior_uniform():
    counts = torch.tensor([90, 9, 1])
    prior = counts / counts.sum()
    assert (prior.log() - prior_shift(counts, tau=1.0)).softmax(0).tolist() == pytest.approx([1 / 3] * 3)
    assert prior_shift(counts, tau=0.0).tolist() == [0, 0, 0]


TAILED = torch.tensor([90, 9, 1])


def test_balanced_softmax_is_the_cross_entropy_of_its_papers_probabilities_and_its_gradient_is_theirs():
    """p_k = n_k e^z_k / Σ n_j e^z_j, and p - y as the slope of each image's loss (Ren et al. 2020, eq. 3)."""
    logits = LOGITS.clone().requires_grad_()
    loss = create_loss(LossConfig(name="balanced_softmax"), counts=TAILED)
    value = loss.sum(logits, LABELS)
    value.backward()
    odds = TAILED * LOGITS.exp()
    p = odds / odds.sum(dim=1, keepdim=True)
    torch.testing.assert_close(value, -p[torch.arange(4), LABELS].log().sum())
    torch.testing.assert_close(logits.grad, p - one_hot(LABELS, 3))


def test_the_logit_adjusted_loss_weighs_a_pair_of_classes_by_the_ratio_of_their_shares_to_the_power_of_tau():
    """log(1 + Σ_{j≠y} (π_j/π_y)^τ e^(z_j - z_y)), as its paper writes it (Menon et al. 2021, eq. 10)."""
    loss = create_loss(LossConfig(name="logit_adjusted", logit_tau=0.5), counts=TAILED)
    for row, label in zip(LOGITS, LABELS, strict=True):
        pairs = (TAILED / TAILED[label]) ** 0.5 * (row - row[label]).exp()
        expected = (1 + pairs.sum() - pairs[label]).log()
        torch.testing.assert_close(loss.sum(row[None], label[None]), expected)


def test_with_a_tau_of_1_the_logit_adjusted_loss_is_balanced_softmax():
    losses = [create_loss(LossConfig(name=name), counts=TAILED) for name in ("logit_adjusted", "balanced_softmax")]
    assert torch.equal(*(loss.sum(LOGITS, LABELS) for loss in losses))


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjusted"])
def test_where_images_say_nothing_logits_of_no_class_before_another_are_the_best(name):
    """Of zero logits the gradients of as many labels as there are images of each class cancel out, as none of `ce` do."""
    logits, labels = torch.zeros(100, 3), torch.repeat_interleave(torch.arange(3), TAILED)
    slopes = {}
    for each in (name, "ce"):
        free = logits.clone().requires_grad_()
        create_loss(LossConfig(name=each), counts=TAILED).sum(free, labels).backward()
        slopes[each] = free.grad.sum(dim=0)
    assert slopes[name].abs().max() < 1e-4
    assert slopes["ce"].abs().max() > 30


def test_a_class_without_training_images_has_a_loss_that_is_a_number():
    loss = create_loss(LossConfig(name="balanced_softmax"), counts=torch.tensor([90, 10, 0]))
    assert torch.isfinite(loss.sum(LOGITS, torch.tensor([2, 2, 2, 2])))


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjusted"])
def test_where_every_class_is_drawn_equally_often_nothing_makes_up_for_their_sizes(name):
    loss = create_balanced_loss(LossConfig(name=name), counts=TAILED)
    torch.testing.assert_close(loss.sum(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, reduction="sum"))


def test_the_shares_of_classes_are_those_of_all_images_shown_and_the_weights_those_of_the_training_images():
    shown, counts = torch.tensor([100, 100, 100]), TAILED
    adjusted = create_loss(LossConfig(name="balanced_softmax"), counts=counts, shown=shown)
    torch.testing.assert_close(adjusted.sum(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, reduction="sum"))
    weighted = LossConfig(class_weights="inverse")
    weights = [create_loss(weighted, counts=counts, **more).weights for more in ({"shown": shown}, {})]
    assert torch.equal(*weights)
