import pytest
import torch
from torch import nn

from trainable.training.anchor import Anchor


@pytest.mark.parametrize("importance", [None, {"weight": torch.tensor([[2.0, 0.0]])}])
def test_the_pull_is_the_gradient_of_the_penalty(importance):
    layer = nn.Linear(2, 1)
    start = {"weight": layer.weight.detach().clone()}
    anchor = Anchor(start, strength=0.3, importance=importance)
    with torch.no_grad():
        layer.weight.add_(torch.tensor([[0.5, -1.0]]))
    factor = torch.ones(1, 2) if importance is None else importance["weight"]
    (0.15 * (factor * (layer.weight - start["weight"]).square()).sum() + layer.bias.sum()).backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    (0 * layer.weight.sum() + layer.bias.sum()).backward()
    anchor.pull(layer)
    torch.testing.assert_close(layer.weight.grad, expected)
    assert layer.bias.grad.tolist() == [1.0]


def test_a_parameter_without_a_gradient_is_left_alone():
    layer = nn.Linear(2, 1)
    Anchor({"weight": torch.zeros(1, 2)}, strength=1.0).pull(layer)
    assert layer.weight.grad is None
