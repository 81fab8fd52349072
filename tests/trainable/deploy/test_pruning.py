"""Pruning takes out the share of parameters that was asked for, and training after it is a function of the seed."""

import pytest
import torch

from trainable.deploy.exporting import Wanted, export
from trainable.deploy.pruning import count, prune
from trainable.errors import UserError


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_as_many_parameters_go_as_were_asked_for(name, untrained):
    one = untrained(name)
    before = count(one.network)
    smaller = prune(one.network, share=0.3, spec=one.spec, name=name)
    assert 0.65 <= count(smaller) / before <= 0.7  # channels go by eights
    assert smaller(torch.zeros(3, 3, 32, 32)).shape == (3, 2)
    assert count(one.network) == before


@pytest.mark.parametrize(
    "settings", [{"pool": "gem"}, {"pool": "attentive"}, {"head": "cosine"}, {"head": "mlp"}], ids=str
)
def test_other_pools_and_heads_are_pruned_with_the_features_that_they_are_given(settings, untrained):
    one = untrained("resnet10t", model={"name": "resnet10t", "weights": "random", **settings})
    smaller = prune(one.network, share=0.3, spec=one.spec, name="resnet10t")
    assert 0.65 <= count(smaller) / count(one.network) <= 0.7
    assert smaller(torch.zeros(3, 3, 32, 32)).shape == (3, 2)
    assert smaller.width < one.network.width
    assert type(smaller.head[-1]) is type(one.network.head[-1])
    assert smaller.head(torch.zeros(1, smaller.width)).shape == (1, 2)


def test_channels_stay_multiples_of_8(untrained):
    one = untrained("resnet10t")
    smaller = prune(one.network, share=0.4, spec=one.spec, name="resnet10t")
    widths = {module.out_channels for module in smaller.modules() if isinstance(module, torch.nn.Conv2d)}
    assert {width % 8 for width in widths} == {0}


def test_a_network_with_attention_is_refused(untrained):
    one = untrained("test_vit")
    with pytest.raises(UserError, match="--prune: test_vit has attention .*only convolutional networks"):
        prune(one.network, share=0.3, spec=one.spec, name="test_vit")


def test_a_network_that_shows_several_stages_is_refused_instead_of_followed_for_ever(untrained):
    one = untrained("resnet10t", model={"name": "resnet10t", "weights": "random", "pool": "stages"})
    with pytest.raises(UserError, match="--prune: resnet10t has model.pool: stages, whose channels cannot be followed"):
        prune(one.network, share=0.3, spec=one.spec, name="resnet10t")


def test_a_share_that_leaves_too_little_is_refused(untrained):
    one = untrained("resnet10t")
    with pytest.raises(UserError, match=r"--prune: at most \d+ % of the parameters of resnet10t can be removed"):
        prune(one.network, share=0.9999, spec=one.spec, name="resnet10t")


def test_a_network_adapted_to_a_target_is_not_pruned(untrained, configured, tmp_path):
    data = configured().data.model_dump() | {"target": "poly", "domain_column": "domain"}
    config = configured(data=data, adapt={"method": "mmd"})
    with pytest.raises(UserError, match=r"adapted to a target domain \(adapt.method: mmd\)"):
        export(untrained("resnet10t").network, config=config, wanted=Wanted(to=(), prune=0.3), folder=tmp_path)
