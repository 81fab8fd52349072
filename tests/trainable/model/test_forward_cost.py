"""Costs of forward passes beside those that papers print."""

import pytest

from trainable import TrialConfig, UserError
from trainable.model.forward_cost import forward_cost


def cost(name, **data):
    return forward_cost(TrialConfig.model_validate({"data": data, "model": {"name": name, "weights": "random"}}))


@pytest.mark.parametrize(
    ("name", "gmacs", "millions"),
    [
        ("resnet18", 1.8, 11.2),  # He et al. 2016, table 1: 1.8·10⁹; 11.7 million with the classifier's 0.5
        (
            "mobilenetv3_large_100",
            0.219,
            4.2,
        ),  # Howard et al. 2019, table 3: 219 million, 5.4 with the classifier's 1.3
        ("deit_tiny_patch16_224", 1.26, 5.5),  # Touvron et al. 2021: 5.7 million with the classifier's 0.2; 1.3·10⁹
    ],
)
def test_costs_are_those_of_the_papers(name, gmacs, millions):
    found = cost(name)
    assert found.gmacs == pytest.approx(gmacs, rel=0.02)
    assert found.parameters / 1e6 == pytest.approx(millions, abs=0.1)
    assert found.image_size == 224


def test_a_convolutions_cost_grows_with_the_images_area():
    """Each of them is padded by half its kernel, so that maps are halved exactly."""
    small, large = cost("resnet18", image_size=64), cost("resnet18", image_size=128)
    assert (small.image_size, large.image_size) == (64, 128)
    assert large.gmacs == pytest.approx(4 * small.gmacs, rel=1e-9)


def test_a_pool_by_attention_is_counted_too():
    name = "vit_base_patch16_siglip_224"
    assert cost(name).gmacs > cost("vit_base_patch16_siglip_gap_224").gmacs > 17


def test_a_backbone_that_cannot_be_built_is_a_line():
    with pytest.raises(UserError, match="model.name: unknown timm architecture 'resnet19'"):
        cost("resnet19")
