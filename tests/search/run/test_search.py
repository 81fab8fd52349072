import pytest

from search.run.search import _variants as variants
from search.space.spec import SearchSpec
from trainable.config.trial import TrialConfig

BACKBONES = ["resnet10t", "resnet18", "resnet26"]


def make_spec(vary, **data):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "base": {"data": {"path": "images"} | data, "model": {"weights": "random"}},
            "vary": {"model.name": {"choice": BACKBONES}, **vary},
        }
    )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("data.sampler", {"choice": ["shuffle", "balanced", "sqrt"]}),
        ("data.rehearsal_share", {"uniform": [0.1, 2.0]}),
        ("data.prefix_gb", {"choice": [0.0, 1.0]}),
        ("data.workers", {"int": [0, 4]}),
    ],
)
def test_what_has_no_say_in_images_or_networks_is_prepared_once(path, values):
    found = variants(make_spec({path: values}, rehearsal="old"))
    assert [one["model"]["name"] for one in found] == BACKBONES
    assert all(TrialConfig.model_validate(one) for one in found)


def test_every_image_size_is_prepared_with_every_backbone():
    found = variants(
        make_spec({"data.image_size": {"choice": [32, 64]}, "data.sampler": {"choice": ["shuffle", "sqrt"]}})
    )
    pairs = {(one["model"]["name"], one["data"]["image_size"]) for one in found}
    assert pairs == {(name, size) for name in BACKBONES for size in (32, 64)}
    assert len(found) == 6
