import copy

import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.data.pack import open_pack
from trainable.model.backbone import input_spec
from trainable.model.chain import chain_of
from trainable.model.network import create_network
from trainable.prefix.key import View, image_key, level_names, prefix_digests

CPU = torch.device("cpu")


@pytest.fixture
def trial(make_config):
    config = make_config()
    spec = input_spec(config.model, image_size=32, channels=3)
    network = create_network(config, spec=spec, num_classes=2)
    chain = chain_of(config.model, spec=spec, flexible=False)
    return config, network, chain, open_pack(config.data, spec), spec


def test_the_digests_follow_the_weights_and_statistics_of_their_links_alone(trial):
    _, network, chain, _, _ = trial
    before = list(prefix_digests(network.backbone, chain, links=len(chain)))
    assert len(set(before)) == len(chain)
    assert list(prefix_digests(network.backbone, chain, links=2)) == before[:2]
    state = network.backbone.state_dict()
    for number, link in enumerate(chain):
        for name in link.tensors:
            changed = copy.deepcopy(network.backbone)
            with torch.no_grad():
                changed.state_dict()[name].add_(1)
            found = list(prefix_digests(changed, chain, links=len(chain)))
            assert found[:number] == before[:number]
            assert not set(found[number:]) & set(before)
    assert sum(len(link.tensors) for link in chain) == len(state)


def test_memory_layout_is_not_in_the_digest(trial):
    _, network, chain, _, _ = trial
    before = list(prefix_digests(network.backbone, chain, links=len(chain)))
    network.to(memory_format=torch.channels_last)
    assert list(prefix_digests(network.backbone, chain, links=len(chain))) == before


def name_of(config, pack, *, rows=None, spec, view, digest="00"):
    rows = pack.indices("train") if rows is None else rows
    images = image_key(pack, rows, spec=spec, view=view)
    return level_names([digest], config=config, device=CPU, images=images)[0]


def test_every_ingredient_changes_the_name(trial, make_config):
    config, _, _, pack, spec = trial
    light = View(AugmentConfig(), 1, 1)
    given = {"config": config, "pack": pack, "spec": spec, "view": light}
    other_pack = open_pack(make_config(data={"split_seed": 1}).data, spec)
    larger = input_spec(config.model, image_size=48, channels=3)
    names = [
        name_of(**(given | changed))
        for changed in (
            {},
            {"digest": "01"},
            {"rows": pack.indices("val")},
            {"pack": other_pack, "rows": pack.indices("train")},
            {"spec": larger},
            {"view": None},
            {"view": View(AugmentConfig(), 2, 1)},
            {"view": View(AugmentConfig(), 1, 2)},
            {"view": View(AugmentConfig(strength="medium"), 1, 1)},
            {"config": make_config(train={"amp": "bf16"})},
            {"config": make_config(train={"channels_last": not config.train.channels_last})},
            {"config": make_config(data={"prefix_dtype": "float32"})},
            {"config": make_config(model={"name": "resnet18"})},
        )
    ]
    assert len(set(names)) == len(names)


def test_threads_change_the_name(trial):
    config, _, _, pack, spec = trial
    before, threads = name_of(config, pack, spec=spec, view=None), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert name_of(config, pack, spec=spec, view=None) != before
    finally:
        torch.set_num_threads(threads)


def test_neither_the_size_of_a_batch_nor_mixing_nor_the_number_of_views_changes_it(trial, make_config):
    config, _, _, pack, spec = trial
    plain = name_of(config, pack, spec=spec, view=View(AugmentConfig(), 1, 1))
    other = View(AugmentConfig(mixup=0.2, views=3), 1, 1)
    assert name_of(make_config(train={"batch_size": 7}), pack, spec=spec, view=other) == plain
