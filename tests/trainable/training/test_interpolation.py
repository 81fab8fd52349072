"""A trained network on its way back to where it began."""

import pytest
import torch
from torch import nn

from trainable.training.interpolation import begins_trained, interpolate, interpolated, starting_state
from trainable.training.setup import set_up


def test_only_what_differs_of_the_backbone_has_a_start(make_config, tmp_path):
    config = make_config()
    torch.save(set_up(config).network.backbone.state_dict(), tmp_path / "weights.pth")
    setup = set_up(make_config(model={"weights": str(tmp_path / "weights.pth")}))
    assert starting_state(setup) == {}
    name, parameter = next(iter(setup.network.backbone.named_parameters()))
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter += 1
        for of_head in setup.network.head.parameters():
            of_head += 1
    start = starting_state(setup)
    assert list(start) == [f"backbone.{name}"]
    assert torch.equal(start[f"backbone.{name}"], before)


@pytest.mark.parametrize(
    ("sections", "begins"),
    [
        ({"model": {"weights": "random"}}, False),
        ({"model": {"weights": "pretrained"}, "finetune": {"strategy": "scratch"}}, False),
        ({"model": {"weights": "pretrained"}, "finetune": {"strategy": "partial"}}, True),
    ],
)
def test_a_backbone_begins_trained_with_weights_and_a_strategy_that_takes_them(make_config, sections, begins):
    assert begins_trained(make_config(**sections)) == begins


def test_weights_are_a_share_of_themselves_and_the_rest_of_what_they_were():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 8.0]]))
    start = {"weight": torch.tensor([[0.0, 4.0]])}
    with interpolated(layer, start, share=0.25):
        assert layer.weight.tolist() == [[1.0, 5.0]]
    assert layer.weight.tolist() == [[4.0, 8.0]]
    interpolate(layer, start, share=0.75)
    assert layer.weight.tolist() == [[3.0, 7.0]]
