import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from trainable.config import LossConfig
from trainable.losses import CrossEntropy, class_weights

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
    assert class_weights(counts, config=LossConfig(class_weights="sqrt")).tolist() == pytest.approx([2 / 3, 4 / 3])
